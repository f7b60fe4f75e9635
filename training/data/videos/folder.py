"""A folder of videos with poses beside them as a source of clips.

A video is a video file, or a folder of pictures; its poses come from whatever `engine.camera.formats` reads. Frames are taken
at an even rate, and each has the pose of the very moment it was taken at.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.camera.formats.posed_frames import PosedFrames
from engine.camera.formats.text_lines import read_lens
from engine.camera.formats.track_files import read_cameras, read_posed
from engine.camera.lens import undistort, undistorted_intrinsics
from engine.camera.tracks import Track, at_times, check_intrinsics, map_intrinsics
from engine.files.bundle import hash_file
from training.data.clip import Clip, ClipRejected, LeftOut
from training.data.videos.finder import Video, find_videos, picture_times_s
from training.data.videos.frames import DecodedFrames, VideoFrames
from training.data.videos.pictures import ImageFrames


@dataclass(frozen=True)
class VideoOptions:
    """How clips are cut from videos."""

    size: tuple[int, int]
    """Width and height in pixels; pictures are resized to cover it and cropped about their centre."""
    fps: float = 16.0
    """Of the clips; pictures of which nothing says when they were taken are taken to have this rate."""
    max_frames: int = 961
    """Longer videos become several clips."""
    min_frames: int = 17
    """A rest that is shorter is left."""
    overlap: int = 0
    """Frames that a clip shares with the one before; the public data shares 640 of 961."""
    max_gap_s: float = 0.25
    """Longest time between two poses that is bridged."""
    metres_per_unit: float = 1.0
    """Length of the unit that poses are in."""

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < self.max_frames or self.min_frames > self.max_frames:
            raise ValueError(
                f"clips of {self.min_frames} to {self.max_frames} frames cannot overlap by {self.overlap}"
            )


@dataclass(frozen=True, eq=False)
class _OpenVideo:
    """A video that was opened: its pictures, and the pose of each moment."""

    video: Video
    pictures: VideoFrames
    track: Track
    """Poses in metres."""
    times_s: NDArray[np.float64] | None
    """When each pose was taken, by the clock of the pictures; None where every picture has its own pose."""
    distortion: NDArray[np.float64] | None
    """Of the lens at each pose, [F, 8]; None where there is none."""

    @cached_property
    def content(self) -> str:
        """Hash of the video's pictures, hex."""
        if isinstance(self.pictures, ImageFrames):
            hashes = "".join(hash_file(path) for path in self.pictures.paths)
            return hashlib.sha256(hashes.encode()).hexdigest()
        return hash_file(self.video.path)


class VideoFolder:
    """The videos of a folder, cut into clips."""

    def __init__(self, folder: Path, options: VideoOptions) -> None:
        """Find videos and read their poses; pictures are decoded when a clip is asked for.

        Raises:
            ValueError: There is no video at all.
        """
        self.name, self.options = folder.resolve().name, options
        videos, self.left_out = find_videos(folder)
        self.clips: list[tuple[_OpenVideo, NDArray[np.int64], int]] = []
        """Video, numbers of its pictures, and which of the video's clips."""
        if not videos and not self.left_out:
            raise ValueError(
                f"{folder} holds no videos; name a folder of videos or pictures with poses beside them"
            )
        for video in videos:
            try:
                self._open(video)
            except (ValueError, OSError) as error:
                self.left_out.append(LeftOut(video.name, str(error)))

    def _open(self, video: Video) -> None:
        if video.is_video:
            self._cut(video, read_posed(video.poses), DecodedFrames(video.path))
            return
        for posed in read_cameras(video.poses):
            name = f"{video.name}/{posed.camera}" if posed.camera else video.name
            self._cut(replace(video, name=name), posed, _listed(video, posed))

    def _cut(self, video: Video, posed: PosedFrames, pictures: VideoFrames) -> None:
        """Cut the pictures of one camera into clips."""
        track = self._metric(posed, video, pictures)
        opened = _OpenVideo(video, pictures, track, _pose_times(posed, pictures, video), posed.distortion)
        numbers = _evenly(opened, self.options.fps)
        step = self.options.max_frames - self.options.overlap
        starts = range(0, max(1, len(numbers) - self.options.overlap), step)
        parts = [numbers[start : start + self.options.max_frames] for start in starts]
        parts = [part for part in parts if len(part) >= self.options.min_frames]
        if not parts:
            raise ValueError(
                f"{video.name} has {len(numbers)} frames with poses; at least {self.options.min_frames} make a clip"
            )
        self.clips += [(opened, part, n) for n, part in enumerate(parts)]

    def _metric(self, posed: PosedFrames, video: Video, pictures: VideoFrames) -> Track:
        """Poses in metres, with the lens of the pictures as they are read."""
        track = posed.track
        pictures.fit_shape(track.image_size)
        if track.intrinsics is None and posed.intrinsics_of is not None:
            track = replace(track, intrinsics=posed.intrinsics_of(pictures.size), image_size=pictures.size)
        if track.intrinsics is None:
            if video.lens is None:
                raise ValueError(
                    f"{video.poses} has no intrinsics for {video.name}; write fx fy cx cy in pixels to {video.name}.lens.txt"
                )
            lens = check_intrinsics(read_lens(video.lens), track.num_frames, str(video.lens))
            track = replace(track, intrinsics=lens, image_size=None)
        c2w = track.c2w.copy()
        c2w[:, :3, 3] *= self.options.metres_per_unit
        return replace(track, c2w=c2w)

    def __len__(self) -> int:
        return len(self.clips)

    def label(self, index: int) -> str:
        opened, _, part = self.clips[index]
        return f"{opened.video.name}-{part:03d}"

    def content(self, index: int) -> str:
        """Hash of all that a clip is made from: pictures, poses, lens, size and words; hex."""
        opened, numbers, _ = self.clips[index]
        digest = hashlib.sha256(opened.content.encode())
        c2w, intrinsics = self._cameras(index)
        distortion = self._distortion(index)
        known = [] if distortion is None else [distortion]
        for array in (numbers, c2w, intrinsics, np.array([*self.options.size, self.options.fps]), *known):
            digest.update(np.ascontiguousarray(array).tobytes())
        digest.update("\0".join([self.label(index), opened.video.scene, opened.video.caption]).encode())
        return digest.hexdigest()[:32]

    def __getitem__(self, index: int) -> Clip:
        """Decode one clip.

        Raises:
            ClipRejected: Poses are missing for some time.
            ValueError: The video is damaged.
        """
        opened, numbers, _ = self.clips[index]
        c2w, intrinsics = self._cameras(index)
        frames = opened.pictures.read(numbers, self.options.size)
        if (distortion := self._distortion(index)) is not None:
            lens, intrinsics = intrinsics, undistorted_intrinsics(intrinsics, distortion, self.options.size)
            cameras = zip(frames, lens, distortion, intrinsics, strict=True)
            frames = np.stack([np.asarray(undistort(*camera), np.uint8) for camera in cameras])
        return Clip(
            name=self.label(index),
            source=self.name,
            scene=opened.video.scene,
            caption=opened.video.caption,
            c2w=c2w,
            intrinsics=intrinsics,
            frame_size=self.options.size,
            fps=self.options.fps,
            frames=frames,
        )

    def _cameras(self, index: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Poses and intrinsics of the moments that a clip's pictures were taken at."""
        opened, numbers, _ = self.clips[index]
        track = opened.track
        if opened.times_s is None:
            c2w, lens = track.c2w[numbers], None if track.intrinsics is None else track.intrinsics[numbers]
        else:
            assert opened.pictures.times_s is not None, "poses with times belong to pictures with times"
            moments = opened.pictures.times_s[numbers]
            self._bridge(opened, moments)
            at = at_times(track, opened.times_s, moments)
            c2w, lens = at.c2w, at.intrinsics
        assert lens is not None, "videos without a lens were left out"
        return c2w, map_intrinsics(lens, track.image_size or opened.pictures.size, self.options.size)

    def _distortion(self, index: int) -> NDArray[np.float64] | None:
        """Distortion of the lens at the poses nearest to a clip's pictures, [F, 8]; None where there is none."""
        opened, numbers, _ = self.clips[index]
        if opened.distortion is None or opened.times_s is None:
            return None if opened.distortion is None else opened.distortion[numbers]
        assert opened.pictures.times_s is not None, "poses with times belong to pictures with times"
        middles = (opened.times_s[1:] + opened.times_s[:-1]) / 2.0
        return opened.distortion[np.searchsorted(middles, opened.pictures.times_s[numbers])]

    def _bridge(self, opened: _OpenVideo, moments: NDArray[np.float64]) -> None:
        """Refuse moments that lie in a long gap between poses."""
        times = opened.times_s
        assert times is not None, "only poses with times have gaps"
        after = np.clip(np.searchsorted(times, moments), 1, max(len(times) - 1, 1)).clip(max=len(times) - 1)
        gap = times[after] - times[after - 1]
        # A moment that falls on a pose needs no bridge.
        off = np.minimum(np.abs(moments - times[after - 1]), np.abs(times[after] - moments))
        if (bad := (gap > self.options.max_gap_s) & (off > 1e-3)).any():
            raise ClipRejected(
                f"{opened.video.name} has no poses for {float(gap[bad].max()):.2f} s at {float(moments[bad][0]):.2f} s"
            )


def _listed(video: Video, posed: PosedFrames) -> ImageFrames:
    """The pictures that poses name, or all of the video's in order."""
    if posed.names is None:
        return ImageFrames(video.pictures, picture_times_s(video.pictures))
    known = _by_ending(video)
    paths = [path for name in posed.names if (path := known.get(_longest(name, known))) is not None]
    if len(paths) < len(posed.names):
        name = next(name for name in posed.names if known.get(_longest(name, known)) is None)
        raise ValueError(
            f"{video.poses} names the picture {name[:80]!r}, which {video.path} does not hold, or in several folders"
        )
    return ImageFrames(paths, picture_times_s(paths))


def _by_ending(video: Video) -> dict[str, Path | None]:
    """The pictures below a video's folder by the ends of their paths, with and without suffix; None for ends of several.

    Only what was found there can be named: a path in a pose file leads nowhere else.
    """
    known: dict[str, Path | None] = {}
    for path in video.pictures:
        inside = path.relative_to(video.path)
        for shown in (inside, inside.with_suffix("")):
            for start in range(len(shown.parts)):
                end = "/".join(shown.parts[start:])
                known[end] = path if known.get(end, path) == path else None
    return known


def _longest(name: str, known: dict[str, Path | None]) -> str:
    """Return the longest end of a picture's name, as a pose file writes it, that is known; empty without one."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    ends = ("/".join(parts[start:]) for start in range(len(parts)))
    return next((end for end in ends if end in known), "")


def _pose_times(posed: PosedFrames, pictures: VideoFrames, video: Video) -> NDArray[np.float64] | None:
    """When each pose was taken by the clock of the pictures; None where every picture has its own pose."""
    count, times = posed.track.num_frames, posed.times_s
    if times is None:
        if count == len(pictures):
            return pictures.times_s
        if posed.track.fps is None or pictures.times_s is None:
            raise ValueError(
                f"{video.poses} has {count} poses for the {len(pictures)} pictures of {video.name}; give as many, "
                "or poses with times"
            )
        return np.arange(count) / posed.track.fps
    if pictures.times_s is None:
        raise ValueError(
            f"nothing says when the pictures of {video.name} were taken; name them after their times in seconds"
        )
    # Trajectories often carry the time of day, videos never do: then both begin together.
    return times - times[0] if video.is_video and times[0] > pictures.times_s[-1] else times


def _evenly(opened: _OpenVideo, fps: float) -> NDArray[np.int64]:
    """Numbers of the pictures nearest to evenly spaced moments of the time that poses cover."""
    taken = opened.pictures.times_s
    if opened.times_s is None or taken is None:
        return np.arange(opened.track.num_frames)
    start, end = max(taken[0], opened.times_s[0]), min(taken[-1], opened.times_s[-1])
    inside = np.flatnonzero((taken >= start - 1e-6) & (taken <= end + 1e-6))
    if not len(inside):
        raise ValueError(f"the poses {opened.video.poses} and {opened.video.name} have no moment in common")
    # Times of day resolve a quarter of a microsecond, which may cost the last moment.
    moments = taken[inside[0]] + np.arange(int((taken[inside[-1]] - taken[inside[0]]) * fps + 1e-4) + 1) / fps
    middles = (taken[inside][1:] + taken[inside][:-1]) / 2.0
    return inside[np.searchsorted(middles, moments, side="right")]
