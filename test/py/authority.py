"""A certificate authority of our own, for servers at 127.0.0.1 and localhost."""
import os
import subprocess

from harness import WORK


def openssl(*args, **kwargs):
    subprocess.run(["openssl", *args], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **kwargs)


def read(path):
    with open(path) as f:
        return f.read()


class Authority:
    def __init__(self, name):
        self.dir = os.path.join(WORK, "ca_" + name)
        os.makedirs(self.dir)
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=" + name,
                "-keyout", self.dir + "/ca.key", "-out", self.dir + "/ca.pem")

    @property
    def pem(self):
        return read(self.dir + "/ca.pem")

    def issue(self, name, names="IP:127.0.0.1", password=None, days=2):
        """A key and a certificate, each by itself and both in one file; with a password the key also encrypted."""
        base = os.path.join(self.dir, name)
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=" + name, "-keyout", base + ".key", "-out", base + ".csr")
        with open(base + ".ext", "w") as f:
            f.write("subjectAltName=%s\n" % names)
        openssl("x509", "-req", "-days", str(days), "-in", base + ".csr", "-CA", self.dir + "/ca.pem", "-CAkey", self.dir + "/ca.key",
                "-CAcreateserial", "-extfile", base + ".ext", "-out", base + ".pem")
        if password:
            openssl("pkcs8", "-topk8", "-in", base + ".key", "-passout", "pass:" + password, "-out", base + ".enc.key")
        with open(base + ".both.pem", "w") as f:
            f.write(read(base + ".key") + read(base + ".pem"))
        os.chmod(base + ".both.pem", 0o600)
        return base
