"""The options that say who may come in and who is believed, as Typer has them."""

from typing import Annotated

import typer

AuthSecretFileOption = Annotated[
    str | None,
    typer.Option(envvar="SDPX_AUTH_SECRET_FILE", metavar="FILE", help="Ask for a token, signed with the secret in it."),
]
AuthJwksOption = Annotated[
    str | None,
    typer.Option(envvar="SDPX_AUTH_JWKS", metavar="FILE", help="Ask for a token, signed by one of these public keys."),
]
AuthAudienceOption = Annotated[
    str | None,
    typer.Option(envvar="SDPX_AUTH_AUDIENCE", metavar="NAME", help="The audience ('aud') that tokens have to be for."),
]
AuthWebhookOption = Annotated[
    str | None,
    typer.Option(envvar="SDPX_AUTH_WEBHOOK", metavar="URL", help="Ask this HTTP service who may come in."),
]
AuthWebhookTimeoutOption = Annotated[
    float,
    typer.Option(
        envvar="SDPX_AUTH_WEBHOOK_TIMEOUT", min=0.1, max=60, metavar="SECONDS", help="How long it may take to answer."
    ),
]
AuthRateOption = Annotated[
    float,
    typer.Option(envvar="SDPX_AUTH_RATE", min=0, help="Failed attempts a second from one address; 0: no limit."),
]
AllowOriginOption = Annotated[
    list[str] | None,
    typer.Option(
        envvar="SDPX_ALLOW_ORIGIN",
        metavar="ORIGIN",
        help="Let pages of this origin in, or of https://*.HOST; repeatable.",
    ),
]
TrustedProxyOption = Annotated[
    list[str] | None,
    typer.Option(
        envvar="SDPX_TRUSTED_PROXY", metavar="CIDR", help="Believe this proxy whom it speaks for; repeatable."
    ),
]
TlsCertOption = Annotated[
    str | None,
    typer.Option(envvar="SDPX_TLS_CERT", metavar="FILE", help="Speak TLS, with this certificate chain (PEM)."),
]
TlsKeyOption = Annotated[
    str | None, typer.Option(envvar="SDPX_TLS_KEY", metavar="FILE", help="The certificate's private key (PEM).")
]
TurnSecretFileOption = Annotated[
    str | None,
    typer.Option(envvar="SDPX_TURN_SECRET_FILE", metavar="FILE", help="coturn's static-auth-secret, for --turn-url."),
]
TurnUrlOption = Annotated[
    list[str] | None,
    typer.Option(envvar="SDPX_TURN_URL", metavar="URL", help="Give clients credentials for this one; repeatable."),
]
TurnTtlOption = Annotated[
    int,
    typer.Option(envvar="SDPX_TURN_TTL", min=1, max=31_536_000, metavar="SECONDS", help="How long they are good for."),
]
CheckOption = Annotated[
    bool, typer.Option("--check", envvar="SDPX_CHECK", help="Check the options and all files, and exit.")
]
PrintConfigOption = Annotated[
    bool,
    typer.Option("--print-config", envvar="SDPX_PRINT_CONFIG", help="Show what is in force, for --config, and exit."),
]
SubOption = Annotated[
    str, typer.Option(envvar="SDPX_SUB", metavar="NAME", help="The ID that the token is for; no client has another.")
]
TtlOption = Annotated[
    str, typer.Option(envvar="SDPX_TTL", metavar="TIME", help="How long it is good for: 90s, 15m, 1h, 7d.")
]
TokenPairOption = Annotated[
    list[str] | None,
    typer.Option(
        envvar="SDPX_TOKEN_PAIR",
        metavar="ID",
        help="Whom it may ask for; * stands for any characters; repeatable. Without: anybody.",
    ),
]
TokenOption = Annotated[
    str | None,
    typer.Option(envvar="SDPX_TOKEN", metavar="TOKEN", help="For a relay that asks for one; best in the environment."),
]
CaFileOption = Annotated[
    str | None,
    typer.Option(envvar="SDPX_CAFILE", metavar="FILE", help="Trust these authorities (PEM) for wss://, and no others."),
]
InsecureOption = Annotated[
    bool, typer.Option("--insecure", envvar="SDPX_INSECURE", help="Do not check the relay's certificate. For tests.")
]
