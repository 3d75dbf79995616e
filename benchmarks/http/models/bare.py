"""The least a Python server can do for this request: parse, sum, write. What everything else is compared to."""

import numpy as np
import orjson

HEADERS = [(b"content-type", b"application/json")]


async def app(scope, receive, send):
    body = b""
    more = True
    while more:
        message = await receive()
        body += message["body"]
        more = message.get("more_body", False)
    request = orjson.loads(body)
    sums = np.asarray(request["inputs"][0]["data"]).reshape(2, 4).sum(axis=1)
    output = {"name": "y", "shape": [2], "datatype": "FP64", "data": sums.tolist()}
    answer = orjson.dumps({"model_name": "rowsums", "outputs": [output]})
    length = (b"content-length", str(len(answer)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [*HEADERS, length]})
    await send({"type": "http.response.body", "body": answer})
