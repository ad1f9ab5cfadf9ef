"""Certificates for tests, made with openssl."""

import subprocess


def write_certificates(folder):
    """Of a server, of a worker and an expired one, signed by `ours`; and an unknown one, signed by `others`."""
    _authority(folder, "ours")
    _authority(folder, "others")
    _certificate(folder, "server", "ours")
    _certificate(folder, "worker", "ours")
    _certificate(folder, "expired", "ours", days=-1)
    _certificate(folder, "unknown", "others")
    (folder / "server.pem").write_text((folder / "server.key").read_text() + (folder / "server.crt").read_text())
    return folder


def _openssl(folder, *arguments):
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def _new(name):
    return ["-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-keyout", f"{name}.key"]


def _authority(folder, name):
    _openssl(folder, "req", "-x509", *_new(name), "-days", "2", "-out", f"{name}.crt")


def _certificate(folder, name, by, days=2):
    """For this machine, signed by an authority."""
    (folder / "san.txt").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    _openssl(folder, "req", *_new(name), "-out", f"{name}.csr")
    signed = ["-CA", f"{by}.crt", "-CAkey", f"{by}.key", "-CAcreateserial", "-extfile", "san.txt", "-days", str(days)]
    _openssl(folder, "x509", "-req", "-in", f"{name}.csr", *signed, "-out", f"{name}.crt")
