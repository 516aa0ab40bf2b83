"""Environment variables named SDPX_* that set no option."""

from sdpx.cli.environment import ignore_unknown


def test_variables_of_kubernetes_are_ignored_with_a_warning() -> None:
    """A Service named sdpx sets SDPX_PORT to a URL, and others beside it; one named sdpx-metrics, SDPX_METRICS_PORT."""
    found = {
        "SDPX_PORT": "tcp://10.0.171.5:8765",
        "SDPX_SERVICE_HOST": "10.0.171.5",
        "SDPX_SERVICE_PORT": "8765",
        "SDPX_SERVICE_PORT_HTTP": "8765",
        "SDPX_PORT_8765_TCP": "tcp://10.0.171.5:8765",
        "SDPX_PORT_8765_TCP_ADDR": "10.0.171.5",
        "SDPX_METRICS_PORT": "tcp://10.0.171.6:9000",
        "SDPX_LOG_LEVEL": "debug",
    }
    [warning] = ignore_unknown(found)
    assert found == {"SDPX_LOG_LEVEL": "debug"}
    assert "Kubernetes" in warning
    assert "SDPX_PORT, SDPX_PORT_8765_TCP" in warning


def test_variable_that_sets_no_option_is_warned_of_with_the_nearest_name() -> None:
    """Variables of options, and those without the prefix, are not mentioned."""
    found = {"SDPX_PROT": "99", "SDPX_URL": "ws://h", "SDPX_TOKEN_PAIR": "a", "PORT": "1", "SDPX_VENV": "v"}
    assert list(ignore_unknown(found)) == [
        "the environment variable SDPX_PROT is ignored: it sets no option; did you mean SDPX_PORT?"
    ]
