"""Verifying a recording without decoding it, for tests."""

from __future__ import annotations

from engine.files.recording import Recording
from engine.session.protocol import Session
from engine.session.replay import Comparison, VerifyReport, check_replayable


def verify_replay(recording: Recording, session: Session) -> VerifyReport:
    """Generate a recorded walk again and compare the latents, up to the first chunk that differs."""
    check_replayable(recording, session)
    session.reset(recording.header.seed)
    comparison = Comparison(recording)
    for recorded in recording.chunks:
        made = session.refine(session.denoise(recorded.track))
        if not comparison.take(made.sha256, made.latents):
            break
    return comparison.report()
