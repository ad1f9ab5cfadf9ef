"""Finds a Java that can run Kafka 4, and fetches Kafka's jars once per user."""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.local.errors import NotInstalled

JAVA_MINIMUM = 17
_POM = Path(__file__).with_name("pom.xml")
_FETCH_S = 900
_TAIL_LINES = 15


def cache_folder() -> Path:
    """The project's folder in the user's cache; exists after the call."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(base) / "callmood"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def cached(name: str) -> Iterator[tuple[Path, Path | None]]:
    """Create a cache entry once, completely or not at all, even if several processes try at the same time.

    Yields its path, and a folder to fill that becomes the entry on leaving; None where the entry exists.
    """
    target = cache_folder() / name
    with target.with_name(f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.is_dir():
            yield target, None
            return
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f"{name}.") as scratch:
            filling = Path(scratch) / "entry"
            filling.mkdir()
            yield target, filling
            filling.rename(target)


def find_java() -> str:
    """Path of a Java 17 or newer: JAVA_HOME first, then PATH.

    Raises:
        NotInstalled: there is none.
    """
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    if java is None or not os.access(java, os.X_OK):
        raise NotInstalled("no Java: install a JDK 17 or newer (Debian: apt-get install openjdk-17-jre-headless maven)")
    answer = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', answer)
    if version is None or int(version[1]) < JAVA_MINIMUM:
        raise NotInstalled(f"{java} is too old: Kafka 4 needs Java {JAVA_MINIMUM} or newer")
    return java


def kafka_jars() -> Path:
    """Folder with Kafka's jars as `pom.xml` names them: from the cache, else by Maven, which needs the network once.

    Raises:
        NotInstalled: they are not in the cache, and there is no Maven or it failed.
    """
    digest = hashlib.sha256(_POM.read_bytes()).hexdigest()[:12]
    with cached(f"kafka-jars-{digest}") as (jars, filling):
        if filling is not None:
            maven = shutil.which("mvn")
            if maven is None:
                raise NotInstalled("no Maven to fetch Kafka's jars: install it (Debian: apt-get install maven)")
            print("fetching Kafka's jars with Maven, once", file=sys.stderr, flush=True)
            copy = ["dependency:copy-dependencies", f"-DoutputDirectory={filling}", "-DincludeScope=runtime"]
            done = subprocess.run(
                [maven, "-B", "-q", "-f", str(_POM), *copy],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
                timeout=_FETCH_S,
            )
            if done.returncode != 0 or not any(filling.glob("kafka_*.jar")):
                tail = "\n".join(done.stdout.splitlines()[-_TAIL_LINES:])
                raise NotInstalled(f"Maven could not fetch Kafka's jars:\n{tail}")
    return jars
