"""The environment variables of a replica: an allow-list of this process's, threads for its share of the cores, the spec's, then ``.env``."""

from __future__ import annotations

import math
import os
import platform
import sys
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from ..core.scalars import parse_quantity
from . import dotenv as dotenv_file

#: Where programs and libraries are found, how text is encoded, where to write, how to reach the network, which devices there are. Nothing else:
#: what the first kernel happened to export must not become part of a deployment.
ALLOWED = frozenset(
    [
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "SHELL",
        "LANG",
        "LANGUAGE",
        "TZ",
        "TMPDIR",
        "TMP",
        "TEMP",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "ALL_PROXY",
        "http_proxy",
        "https_proxy",
        "no_proxy",
        "all_proxy",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
        "LD_LIBRARY_PATH",
        "DYLD_LIBRARY_PATH",
        "CUDA_HOME",
        "CUDA_PATH",
        "CUDA_VISIBLE_DEVICES",
        "NVIDIA_VISIBLE_DEVICES",
        "NVIDIA_DRIVER_CAPABILITIES",
        "OPENBLAS_CORETYPE",
        "OPENBLAS_L2_SIZE",
        "XDG_CACHE_HOME",
        "HF_HOME",
    ]
)
ALLOWED_PREFIXES = ("LC_",)
#: What tells the usual libraries how many threads to compute with: OpenMP (PyTorch, scikit-learn, XGBoost), MKL, OpenBLAS, numexpr, Accelerate,
#: TensorFlow, Rust's. ONNX Runtime asks for it in code only.
THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "RAYON_NUM_THREADS",
)
#: The spec's default share, with which libraries use all cores as they do in the notebook: what nobody asked for slows nobody down.
DEFAULT_CPU = "200m"

#: What uv, pip, conda and git are told by: where packages are, how to get in. For installing only: no replica has them.
INSTALLERS = ("PIP_", "UV_", "CONDA_", "MAMBA_", "NETRC", "GIT_SSH", "SSH_AUTH_SOCK")
#: Those that say which environment a shell was in, and so where to install; that is ours to say.
_ACTIVE = ("CONDA_PREFIX", "CONDA_DEFAULT_ENV", "CONDA_SHLVL", "CONDA_PROMPT_MODIFIER", "PIP_TARGET", "PIP_PREFIX", "PIP_USER", "PIP_REQUIREMENT")
_OURS = ("PIP_PYTHON", "PIP_REQUIRE_VIRTUALENV", "UV_PYTHON", "UV_PROJECT_ENVIRONMENT", "UV_SYSTEM_PYTHON")


def installers(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables of those who install; for the processes that do, never for replicas."""
    source = os.environ if environ is None else environ
    return {key: value for key, value in source.items() if key.startswith(INSTALLERS) and not key.startswith(_ACTIVE + _OURS)}


def base(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    source = os.environ if environ is None else environ
    return {key: value for key, value in source.items() if key in ALLOWED or key.startswith(ALLOWED_PREFIXES)}


def cpu_share(compute: Mapping[str, Any]) -> Fraction | None:
    """The cores of ``compute.cpu``; None for the default, which limits nothing."""
    cpu = compute.get("cpu")
    return None if cpu is None or parse_quantity(cpu) == parse_quantity(DEFAULT_CPU) else parse_quantity(cpu)


def threads(compute: Mapping[str, Any]) -> dict[str, str]:
    """The variables that keep a replica's libraries to its share of this machine's cores, rounded up; {} where there is no share."""
    share = cpu_share(compute)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {} if share is None else dict.fromkeys(THREADS, str(max(1, min(math.ceil(share), cores))))


def for_replica(spec: dict[str, Any], dotenv: str, project_dir: Path, names: list[str]) -> tuple[dict[str, str], list[str]]:
    """The whole environment of a replica, and the values that must not appear in logs (those of ``.env``).

    ``names``: the APIs there are now; behind a proxy their chaining names must be excepted one by one.
    """
    section = spec["handler"]
    env = {**base(), **threads(spec.get("compute", {})), **section["env"]}
    secrets = dotenv_file.parse(dotenv.encode(), env) if dotenv else {}
    env.update(secrets)
    if any(key.lower() in ("http_proxy", "all_proxy") for key in env):
        excepted = [part for part in (env.get("no_proxy") or env.get("NO_PROXY") or "").split(",") if part]
        env["no_proxy"] = env["NO_PROXY"] = ",".join(excepted + [f"api-{name}" for name in names])
    env.update(
        CORTEX_PROJECT_DIR=str(project_dir),
        CORTEX_PYTHON_PATH=str(project_dir / (section.get("python_path") or "")),
        CORTEX_LOG_LEVEL=section["log_level"].upper(),
        CORTEX_KIND=spec["kind"],
        PYTHONUNBUFFERED="1",
        # A crash in native code leaves its Python stack in the API's log.
        PYTHONFAULTHANDLER="1",
    )
    return env, list(secrets.values())


def python_version(interpreter: str, recorded: str) -> str:
    """The version of an interpreter: ours is known, another one's is what its deployment recorded."""
    return platform.python_version() if interpreter == sys.executable else recorded
