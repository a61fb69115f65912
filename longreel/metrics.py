"""Every metric of Longreel: what Prometheus finds, and where it comes from.

Names follow Prometheus' own rules: base units, and ``_total`` for what only grows. Labels take few
values; no session, client or address is ever one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]
#: ``gateway``, ``replica``, ``directory``: at the gateway's ``/metrics``, those of replicas with
#: the label ``replica``. ``job``, ``stream``: with Ray's own metrics, and ``ray_`` before the name.
Part = Literal["gateway", "replica", "directory", "job", "stream"]

LAG_S = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 5.0, 10.0, 30.0, 60.0)
STEP_S = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
WRITE_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
WAIT_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_KINDS = ("live", "bulk")


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        help: what it says, for people.
        labels: by name, the values it takes; none where they are not known beforehand.
        buckets: upper bounds of a histogram's, in its unit.
    """

    part: Part
    kind: Kind
    name: str
    help: str
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    buckets: Sequence[float] = ()

    @property
    def exported(self) -> str:
        """Its name as Prometheus has it."""
        return f"ray_{self.name}" if self.part in ("job", "stream") else self.name

    @property
    def samples(self) -> tuple[str, ...]:
        """Names of its samples, for queries."""
        if self.kind != "histogram":
            return (self.exported,)
        return tuple(f"{self.exported}_{part}" for part in ("bucket", "sum", "count"))


BUILD = Metric(
    "gateway",
    "gauge",
    "longreel_build_info",
    "Always 1; its labels say what is served.",
    {"version": (), "model": (), "revision": ()},
)
UP = Metric(
    "gateway",
    "gauge",
    "longreel_up",
    "Whether a replica that calls are routed to answered this scrape.",
    {"replica": ()},
)
DIRECTORY_UP = Metric(
    "gateway",
    "gauge",
    "longreel_directory_up",
    "Whether the session directory answered this scrape.",
)
STORE_HELD = Metric(
    "gateway",
    "gauge",
    "longreel_store_held",
    "Whether this cluster holds the state store; 0 while it waits for another one that does.",
)
REPLICAS = Metric("gateway", "gauge", "longreel_replicas", "Replicas that calls are routed to.")
HTTP_REQUESTS = Metric(
    "gateway",
    "counter",
    "longreel_http_requests_total",
    "Requests answered; a WebSocket counts with the status of its close.",
    {"route": (), "method": (), "status": ()},
)
HTTP_SECONDS = Metric(
    "gateway",
    "histogram",
    "longreel_http_request_seconds",
    "From a request's head to its answer's last byte; of event streams, to their head.",
    {"route": (), "method": ()},
    WAIT_S,
)
HTTP_BYTES = Metric(
    "gateway",
    "counter",
    "longreel_http_request_bytes_total",
    "Bytes of bodies and of WebSocket messages that clients sent.",
    {"route": ()},
)
SOCKETS = Metric("gateway", "gauge", "longreel_websockets_open", "WebSockets that are open.")
EVENT_STREAMS = Metric(
    "gateway", "gauge", "longreel_event_streams_open", "Server-sent event streams that are open."
)
DECODE_SECONDS = Metric(
    "gateway",
    "histogram",
    "longreel_media_decode_seconds",
    "Decoding of what one request or message to a session brought, waiting for a process included.",
    buckets=WAIT_S,
)
DECODE_REFUSED = Metric(
    "gateway",
    "counter",
    "longreel_media_refused_total",
    "Frames and pieces of video that were refused, by the error's code.",
    {"code": ("media_error", "media_too_large", "unsupported_media_type", "other")},
)

SESSIONS_HERE = Metric(
    "replica", "gauge", "longreel_replica_sessions", "Sessions in a replica's memory."
)
LIVE_WORK = Metric(
    "replica",
    "gauge",
    "longreel_live_work_ratio",
    "Share of a replica's time that live frames and answers take as fast as they come; above 1 it "
    "falls behind. Autoscaling aims at 0.85.",
)
FRAMES_ACCEPTED = Metric(
    "replica",
    "counter",
    "longreel_frames_accepted_total",
    "Frames that were made durable and acknowledged.",
    {"kind": _KINDS},
)
FRAMES_DROPPED = Metric(
    "replica",
    "counter",
    "longreel_frames_dropped_total",
    "Frames that were not taken: between two of the session's fps, out of order, or because too "
    "many waited.",
    {"reason": ("rate", "late", "lag")},
)
FRAME_LAG = Metric(
    "replica",
    "histogram",
    "longreel_frame_lag_seconds",
    "From a frame's receipt by the replica to the model having seen it.",
    {"kind": _KINDS},
    LAG_S,
)
FRAMES_WAITING = Metric(
    "replica", "gauge", "longreel_frames_waiting", "Accepted frames that the model has not seen."
)
QUESTIONS_WAITING = Metric(
    "replica", "gauge", "longreel_questions_waiting", "Questions that are not answered to the end."
)
OLDEST = Metric(
    "replica",
    "gauge",
    "longreel_oldest_waiting_seconds",
    "Age of the oldest input of a live session that waits.",
)
NARRATIONS = Metric(
    "replica",
    "counter",
    "longreel_narrations_total",
    "Narrations that sessions ended.",
    {"kind": _KINDS},
)
ANSWERS = Metric(
    "replica",
    "counter",
    "longreel_answers_total",
    "Answers that ended, by how.",
    {"status": ("completed", "length", "cancelled", "failed")},
)
FIRST_WORD = Metric(
    "replica",
    "histogram",
    "longreel_answer_first_word_seconds",
    "From a question's receipt to the first word of its answer.",
    buckets=WAIT_S,
)
ANSWER_SECONDS = Metric(
    "replica",
    "histogram",
    "longreel_answer_seconds",
    "From a question's receipt to the end of its answer.",
    buckets=WAIT_S,
)
RECOVERY = Metric(
    "replica",
    "histogram",
    "longreel_session_recovery_seconds",
    "From the call that took a session in to its log being replayed: it came from a lost owner, "
    "from the store where it was idle, or from its own replica whose engine had failed.",
    {"cause": ("lost", "idle", "engine")},
    WAIT_S,
)
OFFLOADS = Metric(
    "replica",
    "counter",
    "longreel_session_offloads_total",
    "Idle sessions that left memory for the state store.",
)
SNAPSHOT_BYTES = Metric(
    "replica", "counter", "longreel_snapshot_bytes_total", "Bytes of sessions' snapshots written."
)
STORE_SECONDS = Metric(
    "replica",
    "histogram",
    "longreel_store_write_seconds",
    "A write to the state store: a batch of the log with the look at the fence, or a snapshot.",
    {"what": ("log", "snapshot")},
    WRITE_S,
)
STORE_FAILURES = Metric(
    "replica",
    "counter",
    "longreel_store_failures_total",
    "Writes to the state store that failed.",
    {"what": ("log", "snapshot")},
)
STEP_SECONDS = Metric(
    "replica",
    "histogram",
    "longreel_engine_step_seconds",
    "One step of the engine.",
    buckets=STEP_S,
)
STEP_TOKENS = Metric(
    "replica",
    "counter",
    "longreel_engine_step_tokens_total",
    "Tokens that steps ran, vision tokens before any is skipped, by kind of work.",
    {"work": ("decode", "live", "question", "bulk")},
)
STEP_BUDGET = Metric(
    "replica",
    "gauge",
    "longreel_engine_step_budget_tokens",
    "Tokens that one step aims at; what steps run over it is how full batches are.",
)
STEP_SESSIONS = Metric(
    "replica",
    "counter",
    "longreel_engine_step_sessions_total",
    "Sessions that took part in steps, once for each step.",
)
FRAMES_RUN = Metric(
    "replica",
    "counter",
    "longreel_engine_frames_run_total",
    "Frames that were run as if the model stayed silent at those before them in their chunk.",
)
FRAMES_KEPT = Metric(
    "replica",
    "counter",
    "longreel_engine_frames_kept_total",
    "Those of them that counted: up to the first at which the model spoke.",
)
WORDS = Metric("replica", "counter", "longreel_engine_words_total", "Tokens that the model said.")
FAILURES = Metric(
    "replica",
    "counter",
    "longreel_engine_failures_total",
    "Inputs and turns that the model could not take in.",
)
STEP_FAILURES = Metric(
    "replica",
    "counter",
    "longreel_engine_step_failures_total",
    "Steps that failed as a whole; every session is taken in anew.",
)
EVICTIONS = Metric(
    "replica",
    "counter",
    "longreel_cache_evictions_total",
    "Caches of sessions that made room for others; they come back when needed.",
)
CACHE_USED = Metric(
    "replica", "gauge", "longreel_cache_used_bytes", "Bytes of cache pages that somebody holds."
)
CACHE_CAPACITY = Metric(
    "replica", "gauge", "longreel_cache_capacity_bytes", "Bytes that caches may take in all."
)

SESSIONS = Metric(
    "directory",
    "gauge",
    "longreel_sessions",
    "Open sessions: in a replica's memory, in the state store alone, or waiting for a new owner "
    "because theirs was lost (in the API: recovering).",
    {"state": ("live", "idle", "lost")},
)
OWNERS = Metric(
    "directory", "gauge", "longreel_owners", "Replicas that report and take new sessions."
)
MOVES = Metric(
    "directory",
    "counter",
    "longreel_session_moves_total",
    "Sessions that were given to another owner because theirs was lost.",
)
RELIEVED = Metric(
    "directory",
    "counter",
    "longreel_sessions_relieved_total",
    "Sessions that were sent elsewhere because their replica could not keep up.",
)
WITHOUT_ROOM = Metric(
    "directory",
    "gauge",
    "longreel_sessions_without_room",
    "New sessions that wait for room on a replica, or were refused a moment ago.",
)
FENCES = Metric(
    "directory", "counter", "longreel_owners_fenced_total", "Owners that were declared lost."
)

_JOB: Mapping[str, Sequence[str]] = {"job_id": ()}
JOB_ROWS = Metric(
    "job",
    "counter",
    "longreel_job_rows_total",
    "Rows that a job's run has made.",
    {**_JOB, "table": ("segments", "videos"), "status": ("ok", "partial", "failed")},
)
JOB_LEFT = Metric(
    "job",
    "gauge",
    "longreel_job_rows_left",
    "Rows that a running job has yet to make.",
    {**_JOB, "table": ("segments", "videos")},
)
JOB_FRAMES = Metric(
    "job", "counter", "longreel_job_frames_total", "Frames that the model saw for a job.", _JOB
)
JOB_VIDEO = Metric(
    "job",
    "counter",
    "longreel_job_video_seconds_total",
    "Seconds of video whose segments have rows.",
    _JOB,
)
JOB_DECODE = Metric(
    "job",
    "counter",
    "longreel_job_decode_seconds_total",
    "Seconds that a job's workers spent decoding.",
    _JOB,
)
JOB_MODEL = Metric(
    "job",
    "counter",
    "longreel_job_model_seconds_total",
    "Seconds of the engine's steps that were a job's.",
    _JOB,
)

STREAMS = Metric(
    "stream", "gauge", "longreel_streams_pulled", "1 of each process that pulls a live source."
)
STREAM_FRAMES = Metric(
    "stream",
    "counter",
    "longreel_stream_frames_total",
    "Frames that pulled sources gave to their sessions.",
)
STREAM_DROPPED = Metric(
    "stream",
    "counter",
    "longreel_stream_frames_dropped_total",
    "Frames of pulled sources that were dropped.",
)
STREAM_CONNECTIONS = Metric(
    "stream",
    "counter",
    "longreel_stream_connections_total",
    "Connections made to pulled sources, repeated ones included.",
)

METRICS: tuple[Metric, ...] = tuple(
    value for value in list(globals().values()) if isinstance(value, Metric)
)
