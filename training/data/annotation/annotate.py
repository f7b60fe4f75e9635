"""Annotation of a set: sources to shots to judged clips to archives, going on where it was stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from engine.camera.tracks import map_intrinsics
from engine.files.atomic import replacing
from engine.files.bundle import hash_file
from model.vae.guided import GuidedAutoencoder
from training.data.annotation.captions import Captions, SidecarCaptions
from training.data.annotation.clip_job import ClipSettings, clip_frames, kept_plan
from training.data.annotation.cut_detectors import cut_finder
from training.data.annotation.given import given_scores
from training.data.annotation.results import CLIPS_FOLDER, ClipResult, digest, read_camera, read_result
from training.data.annotation.runners import ClipJob, Runner, in_this_process
from training.data.annotation.shots import ClipPlan, plan_clips
from training.data.annotation.sources import Source, find_sources
from training.data.archives.writer import RAW_FOLDER, write_archive
from training.data.clip import Clip, ClipRejected, LeftOut, readable
from training.data.latent_cache import LatentCache
from training.data.latents import EncodedClips, weights_tag

ENCODED_FOLDER = "encoded"
CLIPS_PER_ARCHIVE = 10_000
Advance = Callable[[int], None]
Stage = Callable[[str, int | None], Advance]


@dataclass(frozen=True)
class AnnotationPlan:
    """What is to be annotated, and how."""

    paths: Sequence[Path]
    folder: Path
    """Of the set."""
    settings: ClipSettings
    size: tuple[int, int]
    """Width and height of the clips in the archives."""
    captions: Captions = field(default_factory=SidecarCaptions)


@dataclass(frozen=True)
class Annotation:
    """What became of all sources."""

    clips: list[ClipResult]
    """In the order of sources and time."""
    left_out: list[LeftOut]
    """Sources and clips that are broken."""
    archived: int
    """Clips in the archives."""
    done_before: int
    """Clips that an earlier call had judged."""


def annotate(
    plan: AnnotationPlan, autoencoder: GuidedAutoencoder, stage: Stage, run: Runner = in_this_process
) -> Annotation:
    """Annotate sources and write the archives of what is kept.

    Args:
        stage: Opens a progress bar by the work and its number of steps.
        run: Does the jobs of clips.
    """
    (plan.folder / CLIPS_FOLDER).mkdir(parents=True, exist_ok=True)
    sources, left_out = find_sources(plan.paths)
    jobs = _jobs(plan, sources, left_out, stage("looking for cuts", len(sources)))
    done = {job.plan.key: result for job in jobs if (result := _done(job)) is not None}
    done_before = len(done)
    advance = stage("judging clips", len(jobs))
    advance(done_before)
    for outcome in run([job for job in jobs if job.plan.key not in done]):
        if isinstance(outcome, LeftOut):
            left_out.append(outcome)
        else:
            done[outcome.key] = outcome
        advance(len(done))
    clips = [done[job.plan.key] for job in jobs if job.plan.key in done]
    kept = _KeptClips(plan, {job.plan.key: job.plan for job in jobs}, [clip for clip in clips if clip.kept])
    archived = _write_archives(plan.folder, kept, autoencoder, left_out, stage)
    return Annotation(clips, left_out, archived, done_before)


def _jobs(
    plan: AnnotationPlan, sources: Sequence[Source], left_out: list[LeftOut], advance: Advance
) -> list[ClipJob]:
    """Plan the clips of all sources; what cannot be read is left out."""
    jobs = []
    for done, source in enumerate(sources, 1):
        try:
            content = _content(source)
            clips, _ = _planned(plan, source, content)
            scores = given_scores(source)
            for clip in clips:
                caption = plan.captions.of(source)
                identity = digest(content, clip.start_s, clip.num_frames, plan.settings, caption, scores)
                jobs.append(ClipJob(clip, plan.settings, caption, identity, plan.folder))
            if not clips:
                left_out.append(LeftOut(source.name, _too_short(plan, source), rejected=True))
        except (ValueError, OSError) as error:
            left_out.append(LeftOut(source.name, str(error)))
        advance(done)
    return jobs


def _planned(plan: AnnotationPlan, source: Source, content: str) -> tuple[list[ClipPlan], list[float]]:
    """Plan a source's clips, or read how they were planned before."""
    lengths = plan.settings.lengths
    path = plan.folder / CLIPS_FOLDER / f"{source.name}.shots"
    identity = digest(content, lengths, plan.settings.cuts)
    try:
        kept = json.loads(path.read_text())
        if kept["identity"] == identity:
            clips = [
                ClipPlan(key, source, float(start_s), int(count)) for key, start_s, count in kept["clips"]
            ]
            return clips, kept["cuts_s"]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    clips, cuts = plan_clips(source, lengths, cut_finder(plan.settings.cuts))
    listed = [(clip.key, clip.start_s, clip.num_frames) for clip in clips]
    with replacing(path) as file:
        file.write_text(json.dumps({"identity": identity, "clips": listed, "cuts_s": cuts}) + "\n")
    return clips, cuts


def _too_short(plan: AnnotationPlan, source: Source) -> str:
    lengths = plan.settings.lengths
    seconds = lengths.least_frames / lengths.fps
    return f"{source.path} has no shot of {seconds:.0f} s or more; ask for shorter clips with --least-frames"


def _content(source: Source) -> str:
    """Hash of a source's files."""
    if source.path.is_file():
        return hash_file(source.path)
    return digest(*(hash_file(item) for item in sorted(source.path.iterdir()) if item.is_file()))


def _done(job: ClipJob) -> ClipResult | None:
    """What an earlier call made of the very same clip."""
    result = read_result(job.folder, job.plan.key)
    return result if result is not None and result.settings == job.identity else None


class _KeptClips:
    """The kept clips with their frames, as a source of clips."""

    def __init__(self, plan: AnnotationPlan, plans: dict[str, ClipPlan], clips: Sequence[ClipResult]) -> None:
        self.plan, self.plans, self.clips = plan, plans, list(clips)
        self.name = plan.folder.resolve().name
        self.left_out: list[LeftOut] = []

    def __len__(self) -> int:
        return len(self.clips)

    def label(self, index: int) -> str:
        return self.clips[index].key

    def content(self, index: int) -> str:
        """Hash of all that a clip is made from."""
        result = self.clips[index]
        return digest(result.model_dump_json(), self.plan.size)

    def __getitem__(self, index: int) -> Clip:
        """Decode one clip at the size of the archives.

        Raises:
            ValueError: Its source is damaged or gone.
        """
        result, fps = self.clips[index], self.plan.settings.lengths.fps
        planned = kept_plan(self.plans[result.key], result)
        c2w, intrinsics, size = read_camera(self.plan.folder, result.key)
        if len(c2w) != result.num_frames:
            raise ClipRejected(f"{result.key} has {len(c2w)} poses for {result.num_frames} frames")
        return Clip(
            name=result.key,
            source=self.name,
            scene=planned.source.name,
            caption=result.caption,
            c2w=c2w,
            intrinsics=map_intrinsics(intrinsics, size, self.plan.size),
            frame_size=self.plan.size,
            fps=fps,
            frames=clip_frames(planned.source.open(), planned, fps, self.plan.size),
        )


def _write_archives(
    folder: Path, kept: _KeptClips, autoencoder: GuidedAutoencoder, left_out: list[LeftOut], stage: Stage
) -> int:
    """Encode the kept clips and write them, with all their scores beside them; returns how many there are."""
    source = EncodedClips(kept, LatentCache(folder / ENCODED_FOLDER, weights_tag(autoencoder)), autoencoder)
    advance = stage("encoding clips", len(kept))
    encoded: list[Clip] = []
    for clip in readable(source, left_out):
        encoded.append(clip)
        advance(len(encoded))
    scores = {clip.key: clip.scores for clip in kept.clips}
    names = set(kept.plan.settings.judge.bounds) - {"blank_share"}
    _remove_archives(folder, -(-len(encoded) // CLIPS_PER_ARCHIVE))
    for start in range(0, len(encoded), CLIPS_PER_ARCHIVE):
        part = encoded[start : start + CLIPS_PER_ARCHIVE]
        tables = {
            f"_{name}": {clip.name: scores[clip.name][name] for clip in part if name in scores[clip.name]}
            for name in sorted(names)
        }
        wanted = {clip.key: n for n, clip in enumerate(kept.clips)}
        with_frames = (kept[wanted[clip.name]] for clip in part)
        write_archive(folder, _archive_name(start // CLIPS_PER_ARCHIVE), _joined(part, with_frames), tables)
    return len(encoded)


def _archive_name(number: int) -> str:
    return f"clips-{number:04d}"


def _remove_archives(folder: Path, first: int) -> None:
    """Remove the archives from some number on: an earlier call kept more clips."""
    for path in (folder / RAW_FOLDER).glob("clips-*.zip"):
        if path.stem >= _archive_name(first):
            path.unlink()


def _joined(encoded: Sequence[Clip], with_frames: Iterable[Clip]) -> Iterator[Clip]:
    """Give encoded clips their frames back, one after the other."""
    for clip, decoded in zip(encoded, with_frames, strict=True):
        assert decoded.frames is not None, "kept clips are decoded"
        yield replace(clip, frames=decoded.frames[: clip.num_frames])
