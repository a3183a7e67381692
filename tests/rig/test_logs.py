"""A log that cannot be written must not stop whoever logs."""

from __future__ import annotations

import io

import structlog

from rig.logs import configure_logs


def test_a_closed_stream_loses_the_line_and_nothing_else():
    stream = io.StringIO()
    configure_logs(json_lines=True, stream=stream)
    log = structlog.get_logger()
    log.warning("seen", code="a")
    seen = stream.getvalue()
    stream.close()
    log.warning("lost", code="b")
    assert '"event": "seen"' in seen
    configure_logs(json_lines=False)


def test_lines_go_to_the_stderr_of_the_moment(capsys):
    configure_logs(json_lines=False)
    structlog.get_logger().error("here")
    assert "here" in capsys.readouterr().err
