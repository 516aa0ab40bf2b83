"""The metrics of a relay, as a scraper reads them."""

from prometheus_client.parser import text_string_to_metric_families

from tests.harness.relay import RelayHarness


async def scrape(relay: RelayHarness) -> dict[str, float]:
    """Return the value of each sample by its name and labels."""
    status, text = await relay.raw().page("/metrics")
    assert status == 200
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {" ".join([sample.name, *sample.labels.values()]): sample.value for sample in samples}
