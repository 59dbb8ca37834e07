"""Reads objects straight from an S3 server: signed requests on one kept connection for each process, nothing else."""
import hashlib, hmac, http.client, os, re, time
from urllib.parse import quote, urlsplit
from xml.sax.saxutils import unescape

REGION, BODY = "us-east-1", "UNSIGNED-PAYLOAD"


class Objects:
    """Those below a folder: http://HOST:PORT/BUCKET/FOLDER. The account is in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."""

    def __init__(self, url):
        at = urlsplit(url)
        self.host = at.netloc
        self.bucket, self.folder = at.path.strip("/").split("/", 1)
        self.connection = self.owner = None

    def names(self):
        names, query = [], {"list-type": "2", "prefix": self.folder + "/"}
        while True:
            page = self.get(f"/{self.bucket}", query).decode()
            names += [unescape(key)[len(self.folder) + 1:] for key in re.findall("<Key>(.*?)</Key>", page)]
            further = re.search("<NextContinuationToken>(.*?)</NextContinuationToken>", page)
            if not further:
                return names
            query["continuation-token"] = unescape(further[1])

    def read(self, name):
        return self.get(f"/{self.bucket}/{self.folder}/{name}", {})

    def get(self, path, query):
        # A worker that was forked must not talk on its parent's connection.
        if self.owner != os.getpid():
            self.connection, self.owner = http.client.HTTPConnection(self.host, timeout=60), os.getpid()
        path = quote(path)
        query = "&".join(f"{name}={quote(value, safe='')}" for name, value in sorted(query.items()))
        self.connection.request("GET", f"{path}?{query}" if query else path, headers=self.signed(path, query))
        answer = self.connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise OSError(f"{path}: {answer.status} {content[:300]}")
        return content

    def signed(self, path, query):
        """Headers with AWS's signature, version 4."""
        now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        headers = {"host": self.host, "x-amz-content-sha256": BODY, "x-amz-date": now}
        lines = [f"{name}:{value}" for name, value in headers.items()]
        request = "\n".join(["GET", path, query, *lines, "", ";".join(headers), BODY])
        scope = f"{now[:8]}/{REGION}/s3/aws4_request"
        text = "\n".join(["AWS4-HMAC-SHA256", now, scope, hashlib.sha256(request.encode()).hexdigest()])
        key = b"AWS4" + os.environ["AWS_SECRET_ACCESS_KEY"].encode()
        for part in [*scope.split("/"), text]:
            key = hmac.new(key, part.encode(), "sha256").digest()
        credential = f"Credential={os.environ['AWS_ACCESS_KEY_ID']}/{scope}"
        headers["authorization"] = f"AWS4-HMAC-SHA256 {credential}, SignedHeaders={';'.join(headers)}, Signature={key.hex()}"
        return headers
