"""The counters against plain sums, and the whole page in Prometheus' format."""

from __future__ import annotations

import re

from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from service_helpers import files_of, make_predictor, metric

from efnet.service.app import create_app
from efnet.service.middleware import Metrics

SAMPLE = re.compile(r'^[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? [0-9.e+-]+$')


@given(st.lists(st.floats(0, 40)))
def test_a_histogram_counts_what_lies_at_or_below_each_bound(values: list[float]) -> None:
    metrics = Metrics(lambda: 0, lambda: 0)
    for value in values:
        metrics.latency.observe(value)
    text = metrics.render()
    buckets = re.findall(r'^efnet_segment_seconds_bucket\{le="(.+)"\} (\S+)$', text, re.MULTILINE)
    assert len(buckets) > 8
    for bound, count in buckets:
        assert float(count) == sum(value <= float(bound) for value in values)
    assert abs(metric(text, "efnet_segment_seconds_sum") - sum(values)) < 1e-6
    assert metric(text, "efnet_segment_seconds_count") == len(values)


def test_every_request_is_counted() -> None:
    with TestClient(create_app(make_predictor())) as client:
        files = files_of()
        sizes = [len(client.post("/v1/segment", files=files).content) for _ in range(3)]
        client.get("/somewhere/else")
        client.post("/v1/segment", files={"rgb": files["rgb"]})
        response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    text = response.text
    assert "_created" not in text
    for line in text.splitlines():
        assert line.startswith(("# HELP efnet_", "# TYPE efnet_")) or SAMPLE.match(line), line
    assert metric(text, 'efnet_requests_total{path="/v1/segment",status="200"}') == 3
    assert metric(text, 'efnet_requests_total{path="/v1/segment",status="400"}') == 1
    assert metric(text, 'efnet_requests_total{path="other",status="404"}') == 1
    assert metric(text, "efnet_segment_seconds_count") == 3
    assert metric(text, "efnet_batch_size_sum") == 4, "three pairs and the warm-up"
    assert metric(text, "efnet_received_bytes_total") > 3 * sum(map(len, files.values()))
    assert metric(text, "efnet_sent_bytes_total") > sum(sizes)
    assert metric(text, "efnet_queue_length") == 0
