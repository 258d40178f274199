"""Environments: where a client points. The local one, or a gateway's URL with a token."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from .core.errors import EnvironmentDown, EnvironmentProblem
from .core.settings import Settings, is_token

LOCAL = "local"
#: The one that the setting JUPYTER_CORTEX_URL names.
SETTINGS = "settings"


@dataclass(frozen=True)
class Environment:
    """``url`` is empty for a local environment that was never started; ``call_token`` where the settings name one for public routes."""

    name: str
    url: str
    token: str = field(repr=False)
    call_token: str = field(default="", repr=False)

    @property
    def caller(self) -> str:
        """What public routes are asked with: a gateway takes the environment's own token for them, too."""
        return self.call_token or self.token


class Environments:
    """The named environments of this user, kept in ``<home>/environments.json`` (0600: it holds tokens)."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._path = settings.home / "environments.json"

    def _read(self) -> dict[str, Any]:
        try:
            document = json.loads(self._path.read_text())
            if not all(isinstance(entry[key], str) for entry in document["environments"].values() for key in ("url", "token")):
                raise TypeError("a URL or token is no text")
            return {"used": str(document["used"]), "environments": dict(document["environments"])}
        except FileNotFoundError:
            return {"used": LOCAL, "environments": {}}
        except OSError as error:
            raise EnvironmentProblem(f"{self._path} cannot be read: {error.strerror}; make it yours again, or remove it") from None
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise EnvironmentProblem(f"{self._path} is damaged ({error}); remove it and add your environments again") from None

    def _write(self, document: dict[str, Any]) -> None:
        temporary = self._path.with_suffix(f".{os.getpid()}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            temporary.touch(mode=0o600)
            temporary.write_text(json.dumps(document, indent=2))
            temporary.replace(self._path)
        except OSError as error:
            raise EnvironmentProblem(f"{self._path} cannot be written: {error.strerror}") from None

    def list(self) -> list[dict[str, Any]]:
        document = self._read()
        address = self._settings.local_address()
        # The setting wins over what was chosen.
        used = SETTINGS if self._settings.url else document["used"]
        rows = [{"name": SETTINGS, "url": self._settings.url, "used": True}] if self._settings.url else []
        rows += [{"name": LOCAL, "url": address[0] if address else "", "used": used == LOCAL}]
        rows += [{"name": name, "url": entry["url"], "used": used == name} for name, entry in document["environments"].items()]
        return rows

    def add(self, name: str, url: str, token: str) -> None:
        """Raises EnvironmentProblem for a name or URL that cannot be used."""
        if name in (LOCAL, SETTINGS) or not name.replace("-", "").replace("_", "").isalnum():
            raise EnvironmentProblem(
                f"{name!r} cannot name an environment: use letters, digits, dashes and underscores, and neither `local` nor `settings`"
            )
        try:
            parts = urlsplit(url)
            usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0  # the port is read here, too
        except ValueError:
            usable = False
        if not usable:
            raise EnvironmentProblem(f"{url!r} is no gateway URL; it looks like https://host:port")
        token = token.strip()
        if not is_token(token):
            raise EnvironmentProblem("the token has characters that no token has (blanks, line ends, letters beyond ASCII); copy it again")
        document = self._read()
        document["environments"][name] = {"url": url.rstrip("/"), "token": token}
        self._write(document)

    def use(self, name: str) -> None:
        document = self._read()
        self._known(document, name)
        if self._settings.url:
            raise EnvironmentProblem("JUPYTER_CORTEX_URL is set and decides which environment is used; unset it first")
        document["used"] = name
        self._write(document)

    def remove(self, name: str) -> None:
        document = self._read()
        self._known(document, name)
        if name == LOCAL:
            raise EnvironmentProblem("the local environment cannot be removed; `cortex down` stops it")
        del document["environments"][name]
        if document["used"] == name:
            document["used"] = LOCAL
        self._write(document)

    def _known(self, document: dict[str, Any], name: str) -> None:
        if name != LOCAL and name not in document["environments"]:
            known = ", ".join([LOCAL, *document["environments"]])
            raise EnvironmentProblem(f"there is no environment {name}; there are {known}. Add one with `cortex env add {name} URL --token TOKEN`")

    def find(self, name: str | None = None) -> Environment:
        """The named one, else the one that settings or `use` say, else the local one."""
        if name in (None, SETTINGS) and self._settings.url:
            return Environment(SETTINGS, self._settings.url.rstrip("/"), self._settings.token, self._settings.call_token)
        document = self._read()
        name = name or document["used"]
        self._known(document, name)
        if name != LOCAL:
            entry = document["environments"][name]
            # The call token of the settings is another gateway's.
            return Environment(name, entry["url"], entry["token"])
        url, token = self._settings.local_address() or ("", "")
        return Environment(LOCAL, url, token, self._settings.call_token)


def chaining_door(settings: Settings) -> tuple[str, int] | None:
    """(address, port) of the door behind `api-<name>` of the local environment, None while it does not run."""
    try:
        door = json.loads((settings.home / "run" / "chain.json").read_text())
        return str(door["address"]), int(door["port"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def stop_local(grace: float) -> dict[str, Any]:
    """Stop the local environment as `cortex down` does: role -> how many processes. Raises EnvironmentDown with the reason."""
    command = [sys.executable, "-P", "-m", "jupyter_cortex.cli", "down", "--grace", str(grace), "-o", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EnvironmentDown(f"the local environment did not stop: {(done.stderr or done.stdout).strip()}")
    return dict(json.loads(done.stdout))


def start_local() -> None:
    """Start the local environment as `cortex up` does. A process of its own does it: what starts it may be a notebook's kernel.

    Raises EnvironmentDown with the reason.
    """
    done = subprocess.run([sys.executable, "-P", "-m", "jupyter_cortex.cli", "up", "--quiet"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise EnvironmentDown(f"the local environment did not start: {(done.stderr or done.stdout).strip()}")
