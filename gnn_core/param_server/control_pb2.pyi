from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Empty(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class JoinRequest(_message.Message):
    __slots__ = ("role", "version", "host", "address", "pid")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    role: str
    version: str
    host: str
    address: str
    pid: int
    def __init__(self, role: _Optional[str] = ..., version: _Optional[str] = ..., host: _Optional[str] = ..., address: _Optional[str] = ..., pid: _Optional[int] = ...) -> None: ...

class JoinReply(_message.Message):
    __slots__ = ("member", "slices")
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    SLICES_FIELD_NUMBER: _ClassVar[int]
    member: int
    slices: int
    def __init__(self, member: _Optional[int] = ..., slices: _Optional[int] = ...) -> None: ...

class ReadyRequest(_message.Message):
    __slots__ = ("worker", "digest", "fingerprint")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    worker: int
    digest: str
    fingerprint: str
    def __init__(self, worker: _Optional[int] = ..., digest: _Optional[str] = ..., fingerprint: _Optional[str] = ...) -> None: ...

class ReadyReply(_message.Message):
    __slots__ = ("term", "shards", "table")
    TERM_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    TABLE_FIELD_NUMBER: _ClassVar[int]
    term: int
    shards: _containers.RepeatedCompositeFieldContainer[Shard]
    table: int
    def __init__(self, term: _Optional[int] = ..., shards: _Optional[_Iterable[_Union[Shard, _Mapping]]] = ..., table: _Optional[int] = ...) -> None: ...

class Shard(_message.Message):
    __slots__ = ("address", "chunks")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    address: str
    chunks: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, address: _Optional[str] = ..., chunks: _Optional[_Iterable[int]] = ...) -> None: ...

class Part(_message.Message):
    __slots__ = ("epoch", "step", "slice", "attempt")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    SLICE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    step: int
    slice: int
    attempt: int
    def __init__(self, epoch: _Optional[int] = ..., step: _Optional[int] = ..., slice: _Optional[int] = ..., attempt: _Optional[int] = ...) -> None: ...

class Done(_message.Message):
    __slots__ = ("part", "loss_sum", "num_correct", "num_edges", "num_rows", "num_global_real", "bytes_pulled", "bytes_pushed", "delay", "compute_seconds", "communicate_seconds", "sample_seconds")
    PART_FIELD_NUMBER: _ClassVar[int]
    LOSS_SUM_FIELD_NUMBER: _ClassVar[int]
    NUM_CORRECT_FIELD_NUMBER: _ClassVar[int]
    NUM_EDGES_FIELD_NUMBER: _ClassVar[int]
    NUM_ROWS_FIELD_NUMBER: _ClassVar[int]
    NUM_GLOBAL_REAL_FIELD_NUMBER: _ClassVar[int]
    BYTES_PULLED_FIELD_NUMBER: _ClassVar[int]
    BYTES_PUSHED_FIELD_NUMBER: _ClassVar[int]
    DELAY_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    COMMUNICATE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    part: Part
    loss_sum: float
    num_correct: float
    num_edges: int
    num_rows: int
    num_global_real: int
    bytes_pulled: int
    bytes_pushed: int
    delay: int
    compute_seconds: float
    communicate_seconds: float
    sample_seconds: float
    def __init__(self, part: _Optional[_Union[Part, _Mapping]] = ..., loss_sum: _Optional[float] = ..., num_correct: _Optional[float] = ..., num_edges: _Optional[int] = ..., num_rows: _Optional[int] = ..., num_global_real: _Optional[int] = ..., bytes_pulled: _Optional[int] = ..., bytes_pushed: _Optional[int] = ..., delay: _Optional[int] = ..., compute_seconds: _Optional[float] = ..., communicate_seconds: _Optional[float] = ..., sample_seconds: _Optional[float] = ...) -> None: ...

class NextRequest(_message.Message):
    __slots__ = ("worker", "done", "residual")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    RESIDUAL_FIELD_NUMBER: _ClassVar[int]
    worker: int
    done: Done
    residual: bytes
    def __init__(self, worker: _Optional[int] = ..., done: _Optional[_Union[Done, _Mapping]] = ..., residual: _Optional[bytes] = ...) -> None: ...

class NextReply(_message.Message):
    __slots__ = ("part", "ahead", "over", "unknown", "residual", "kept", "table")
    PART_FIELD_NUMBER: _ClassVar[int]
    AHEAD_FIELD_NUMBER: _ClassVar[int]
    OVER_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    RESIDUAL_FIELD_NUMBER: _ClassVar[int]
    KEPT_FIELD_NUMBER: _ClassVar[int]
    TABLE_FIELD_NUMBER: _ClassVar[int]
    part: Part
    ahead: Part
    over: bool
    unknown: bool
    residual: bool
    kept: bytes
    table: int
    def __init__(self, part: _Optional[_Union[Part, _Mapping]] = ..., ahead: _Optional[_Union[Part, _Mapping]] = ..., over: _Optional[bool] = ..., unknown: _Optional[bool] = ..., residual: _Optional[bool] = ..., kept: _Optional[bytes] = ..., table: _Optional[int] = ...) -> None: ...

class BeatRequest(_message.Message):
    __slots__ = ("role", "member")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    role: str
    member: int
    def __init__(self, role: _Optional[str] = ..., member: _Optional[int] = ...) -> None: ...

class LoadRequest(_message.Message):
    __slots__ = ("term", "dtype", "optimizer", "weight_decay", "synchronous", "slices", "size", "values", "exp_avg", "exp_avg_sq", "num_steps", "compress", "is_standby", "standby")
    TERM_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZER_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_DECAY_FIELD_NUMBER: _ClassVar[int]
    SYNCHRONOUS_FIELD_NUMBER: _ClassVar[int]
    SLICES_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    EXP_AVG_FIELD_NUMBER: _ClassVar[int]
    EXP_AVG_SQ_FIELD_NUMBER: _ClassVar[int]
    NUM_STEPS_FIELD_NUMBER: _ClassVar[int]
    COMPRESS_FIELD_NUMBER: _ClassVar[int]
    IS_STANDBY_FIELD_NUMBER: _ClassVar[int]
    STANDBY_FIELD_NUMBER: _ClassVar[int]
    term: int
    dtype: str
    optimizer: str
    weight_decay: float
    synchronous: bool
    slices: int
    size: int
    values: bytes
    exp_avg: bytes
    exp_avg_sq: bytes
    num_steps: int
    compress: str
    is_standby: bool
    standby: str
    def __init__(self, term: _Optional[int] = ..., dtype: _Optional[str] = ..., optimizer: _Optional[str] = ..., weight_decay: _Optional[float] = ..., synchronous: _Optional[bool] = ..., slices: _Optional[int] = ..., size: _Optional[int] = ..., values: _Optional[bytes] = ..., exp_avg: _Optional[bytes] = ..., exp_avg_sq: _Optional[bytes] = ..., num_steps: _Optional[int] = ..., compress: _Optional[str] = ..., is_standby: _Optional[bool] = ..., standby: _Optional[str] = ...) -> None: ...

class ReadRequest(_message.Message):
    __slots__ = ("optimizer", "journal")
    OPTIMIZER_FIELD_NUMBER: _ClassVar[int]
    JOURNAL_FIELD_NUMBER: _ClassVar[int]
    optimizer: bool
    journal: bool
    def __init__(self, optimizer: _Optional[bool] = ..., journal: _Optional[bool] = ...) -> None: ...

class Update(_message.Message):
    __slots__ = ("part", "pulled")
    PART_FIELD_NUMBER: _ClassVar[int]
    PULLED_FIELD_NUMBER: _ClassVar[int]
    part: Part
    pulled: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, part: _Optional[_Union[Part, _Mapping]] = ..., pulled: _Optional[_Iterable[int]] = ...) -> None: ...

class ReadReply(_message.Message):
    __slots__ = ("values", "exp_avg", "exp_avg_sq", "num_steps", "journal")
    VALUES_FIELD_NUMBER: _ClassVar[int]
    EXP_AVG_FIELD_NUMBER: _ClassVar[int]
    EXP_AVG_SQ_FIELD_NUMBER: _ClassVar[int]
    NUM_STEPS_FIELD_NUMBER: _ClassVar[int]
    JOURNAL_FIELD_NUMBER: _ClassVar[int]
    values: bytes
    exp_avg: bytes
    exp_avg_sq: bytes
    num_steps: int
    journal: _containers.RepeatedCompositeFieldContainer[Update]
    def __init__(self, values: _Optional[bytes] = ..., exp_avg: _Optional[bytes] = ..., exp_avg_sq: _Optional[bytes] = ..., num_steps: _Optional[int] = ..., journal: _Optional[_Iterable[_Union[Update, _Mapping]]] = ...) -> None: ...

class PullRequest(_message.Message):
    __slots__ = ("term",)
    TERM_FIELD_NUMBER: _ClassVar[int]
    term: int
    def __init__(self, term: _Optional[int] = ...) -> None: ...

class PullReply(_message.Message):
    __slots__ = ("version", "values")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    version: int
    values: bytes
    def __init__(self, version: _Optional[int] = ..., values: _Optional[bytes] = ...) -> None: ...

class PushRequest(_message.Message):
    __slots__ = ("term", "part", "lr", "share", "gradient", "pulled", "indices", "forwarded")
    TERM_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    LR_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    GRADIENT_FIELD_NUMBER: _ClassVar[int]
    PULLED_FIELD_NUMBER: _ClassVar[int]
    INDICES_FIELD_NUMBER: _ClassVar[int]
    FORWARDED_FIELD_NUMBER: _ClassVar[int]
    term: int
    part: Part
    lr: float
    share: float
    gradient: bytes
    pulled: _containers.RepeatedScalarFieldContainer[int]
    indices: bytes
    forwarded: bool
    def __init__(self, term: _Optional[int] = ..., part: _Optional[_Union[Part, _Mapping]] = ..., lr: _Optional[float] = ..., share: _Optional[float] = ..., gradient: _Optional[bytes] = ..., pulled: _Optional[_Iterable[int]] = ..., indices: _Optional[bytes] = ..., forwarded: _Optional[bool] = ...) -> None: ...

class PushReply(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: int
    def __init__(self, version: _Optional[int] = ...) -> None: ...
