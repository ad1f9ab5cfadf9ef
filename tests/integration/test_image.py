"""The image: the steps of deploy/Dockerfile in a real build, and what they make, run as the chart runs it.

The base is Debian 12 as Debian's own tool lays it out; torch, some GB, is that of this environment, mounted
(`VARIANT=none`). With IMAGE_VARIANT=cuda the whole image is built, and nothing is mounted.
"""

import json
import os
import shutil
import signal
import subprocess
import sysconfig
from pathlib import Path
from types import SimpleNamespace

import pytest

pytestmark = [pytest.mark.timeout(1800), pytest.mark.nightly]  # the build takes minutes

ROOT = Path(__file__).parents[2]
VARIANT = os.environ.get("IMAGE_VARIANT", "none")
# The pod's security context: another user, nothing but /tmp and /cache to write to, no capability, no way to get any.
_AS_A_POD = r"""
set -e
mount --make-rprivate /
mount --bind "$ROOT" "$ROOT"
mount -o remount,ro,bind "$ROOT"
if [ -d "$ROOT/torch" ]; then mount --bind "$SITE" "$ROOT/torch"; fi
mount --rbind /dev "$ROOT/dev"
mount -t proc proc "$ROOT/proc"
mount -t tmpfs -o mode=1777 tmpfs "$ROOT/tmp"
mount -t tmpfs -o mode=0770,uid=65532,gid=65532 tmpfs "$ROOT/cache"
exec chroot "$ROOT" setpriv --reuid 65532 --regid 65532 --clear-groups --no-new-privs \
    --bounding-set=-all --inh-caps=-all "$@"
"""


@pytest.fixture(scope="module")
def buildah(tmp_path_factory):
    """`buildah(*arguments)` runs it on a storage of this test's own; its standard output."""
    if missing := [name for name in ("buildah", "debootstrap") if shutil.which(name) is None]:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"apt-get install {' '.join(missing)}")
    if os.geteuid() != 0:
        pytest.skip("needs root, as a build without an engine does")
    folder = tmp_path_factory.mktemp("images")
    storage = ["--root", folder / "root", "--runroot", folder / "run", "--storage-driver", "overlay"]

    def run(*arguments):
        done = subprocess.run(["buildah", *storage, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        return done.stdout.strip()

    yield run
    run("umount", "--all")
    run("rm", "--all")
    run("rmi", "--all", "--force")


@pytest.fixture(scope="module")
def base(buildah, tmp_path_factory):
    """Debian 12, which trusts whom this machine trusts."""
    folder = tmp_path_factory.mktemp("debian") / "root"
    subprocess.run(["debootstrap", "--variant=minbase", "bookworm", folder], check=True, capture_output=True)
    trusted = Path("/etc/ssl/certs/ca-certificates.crt")
    if trusted.exists():
        own = folder / "usr/local/share/ca-certificates"
        own.mkdir(parents=True, exist_ok=True)
        shutil.copy(trusted, own / "machine.crt")
    container = buildah("from", "scratch")
    buildah("add", "--quiet", container, folder, "/")
    buildah("commit", "--quiet", container, "localhost/debian:bookworm")
    shutil.rmtree(folder)
    return "localhost/debian:bookworm"


@pytest.fixture(scope="module")
def image(buildah, base):
    """What the Dockerfile makes: its configuration, and its root as a folder."""
    arguments = [f"--build-arg={name}" for name in (f"BASE={base}", f"VARIANT={VARIANT}", "TORCH_PATH=/torch")]
    where = ["--isolation", "chroot", "--layers=false", "--file", ROOT / "deploy/Dockerfile", "--format", "docker"]
    buildah("build", *where, *arguments, "--tag", "localhost/callmood:test", ROOT)
    config = json.loads(buildah("inspect", "--type", "image", "localhost/callmood:test"))["Docker"]["config"]
    container = buildah("from", "localhost/callmood:test")
    root = Path(buildah("mount", container))
    if VARIANT == "none":
        (root / "torch").mkdir()
    return SimpleNamespace(config=config, root=root)


@pytest.fixture
def start(image, tmp_path):
    """`start(*command, **settings)`: a process as a pod of the chart would have it."""

    def begin(*command, **settings):
        environment = dict(entry.split("=", 1) for entry in image.config["Env"])
        environment |= {f"CALLMOOD_{name.upper()}": value for name, value in settings.items()}
        environment |= {"ROOT": str(image.root), "SITE": sysconfig.get_path("purelib")}
        with (tmp_path / "log").open("w") as log:
            return subprocess.Popen(
                ["/usr/bin/unshare", "--mount", "/bin/sh", "-c", _AS_A_POD, "pod", *command],
                env=environment | {"PATH": f"{environment['PATH']}:/usr/sbin:/sbin"},
                stdout=log,
                stderr=log,
            )

    return begin


def test_the_image_is_configured(image):
    """Nobody's user, the worker by default, its port, and a look at its health."""
    assert image.config["User"] == "65532:65532"
    assert image.config["Entrypoint"] + image.config["Cmd"] == ["callmood", "worker"]
    assert "8080/tcp" in image.config["ExposedPorts"]
    assert "livez" in image.config["Healthcheck"]["Test"][-1]


def test_the_image_holds_only_what_it_needs(image):
    """No compiler, no pip, no package lists, no secrets of the build, nothing that its user could write to."""
    names = {path.name for folder in ("usr/bin", "opt/callmood/bin") for path in (image.root / folder).iterdir()}
    assert "callmood" in names
    assert not names & {"gcc", "cc", "c++", "ld", "make", "pip", "pip3", "git", "curl"}
    assert list((image.root / "var/lib/apt/lists").iterdir()) == []
    writable = [path for path in (image.root / "opt").rglob("*") if path.stat(follow_symlinks=False).st_uid != 0]
    assert writable == []


def test_the_image_works_as_a_pod_of_the_chart(image, start, pipeline, recorded, tmp_path, wait_until):
    """Without rights and on a read-only root, a worker labels a call exactly, says so at /readyz, and drains."""
    calls = {"call-1": recorded.call("billing")}
    process = start(
        *image.config["Entrypoint"],
        *image.config["Cmd"],
        kafka__bootstrap_servers=pipeline.bootstrap_servers,
        kafka__audio_topic=pipeline.audio_topic,
        kafka__dead_letter_topic=pipeline.dead_letter_topic,
        kafka__group_id=pipeline.prefix,
        redis__url=pipeline.redis_url,
        redis__prefix=pipeline.prefix,
        model__device="cpu",
        worker__health_host="127.0.0.1",
        worker__health_port="0",
        log__format="json",
    )
    try:
        pipeline.send(calls)
        wait_until(lambda: process.poll() is not None or pipeline.ended(calls), 150)
        assert process.poll() is None, (tmp_path / "log").read_text()
        pipeline.assert_exact(calls)
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert "Uid:\t65532\t65532" in status
        assert "CapBnd:\t0000000000000000" in status
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, (tmp_path / "log").read_text()
    finally:
        process.kill()
        process.wait()
    assert wait_until(lambda: "worker stopped" in (tmp_path / "log").read_text())
    started = json.loads(next(line for line in (tmp_path / "log").read_text().splitlines() if "worker started" in line))
    assert started["compiled"]


def test_the_root_of_the_image_is_read_only(start, tmp_path):
    """The last test was no illusion: the same process may write to /tmp, and to nothing else."""
    process = start("python", "-c", "open('/tmp/a', 'w'); open('/opt/callmood/a', 'w')")
    assert process.wait(60) == 1
    assert "Read-only file system: '/opt/callmood/a'" in (tmp_path / "log").read_text()
