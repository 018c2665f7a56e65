import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DataType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DATA_TYPE_UNSPECIFIED: _ClassVar[DataType]
    DATA_TYPE_UINT8: _ClassVar[DataType]
    DATA_TYPE_FLOAT32: _ClassVar[DataType]

class ColumnKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COLUMN_KIND_UNSPECIFIED: _ClassVar[ColumnKind]
    COLUMN_KIND_NUMBER: _ClassVar[ColumnKind]
    COLUMN_KIND_CATEGORY: _ClassVar[ColumnKind]
DATA_TYPE_UNSPECIFIED: DataType
DATA_TYPE_UINT8: DataType
DATA_TYPE_FLOAT32: DataType
COLUMN_KIND_UNSPECIFIED: ColumnKind
COLUMN_KIND_NUMBER: ColumnKind
COLUMN_KIND_CATEGORY: ColumnKind

class ScoreRequest(_message.Message):
    __slots__ = ("detector", "version", "images", "tensor", "columns", "include_reconstruction")
    DETECTOR_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_RECONSTRUCTION_FIELD_NUMBER: _ClassVar[int]
    detector: str
    version: str
    images: EncodedImages
    tensor: Tensor
    columns: Columns
    include_reconstruction: bool
    def __init__(self, detector: _Optional[str] = ..., version: _Optional[str] = ..., images: _Optional[_Union[EncodedImages, _Mapping]] = ..., tensor: _Optional[_Union[Tensor, _Mapping]] = ..., columns: _Optional[_Union[Columns, _Mapping]] = ..., include_reconstruction: _Optional[bool] = ...) -> None: ...

class EncodedImages(_message.Message):
    __slots__ = ("contents",)
    CONTENTS_FIELD_NUMBER: _ClassVar[int]
    contents: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, contents: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Tensor(_message.Message):
    __slots__ = ("data_type", "shape", "data")
    DATA_TYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    data_type: DataType
    shape: _containers.RepeatedScalarFieldContainer[int]
    data: bytes
    def __init__(self, data_type: _Optional[_Union[DataType, str]] = ..., shape: _Optional[_Iterable[int]] = ..., data: _Optional[bytes] = ...) -> None: ...

class Columns(_message.Message):
    __slots__ = ("columns",)
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    columns: _containers.RepeatedCompositeFieldContainer[Column]
    def __init__(self, columns: _Optional[_Iterable[_Union[Column, _Mapping]]] = ...) -> None: ...

class Column(_message.Message):
    __slots__ = ("name", "numbers", "float64_data", "texts")
    NAME_FIELD_NUMBER: _ClassVar[int]
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    FLOAT64_DATA_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    numbers: Numbers
    float64_data: bytes
    texts: Texts
    def __init__(self, name: _Optional[str] = ..., numbers: _Optional[_Union[Numbers, _Mapping]] = ..., float64_data: _Optional[bytes] = ..., texts: _Optional[_Union[Texts, _Mapping]] = ...) -> None: ...

class Numbers(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, values: _Optional[_Iterable[float]] = ...) -> None: ...

class Texts(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, values: _Optional[_Iterable[str]] = ...) -> None: ...

class ScoreResponse(_message.Message):
    __slots__ = ("detector", "version", "threshold", "alarm_rate", "scores", "normalized_scores", "p_values", "is_anomaly", "unseen_category_count", "missing_value_count", "reconstruction")
    DETECTOR_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    ALARM_RATE_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    NORMALIZED_SCORES_FIELD_NUMBER: _ClassVar[int]
    P_VALUES_FIELD_NUMBER: _ClassVar[int]
    IS_ANOMALY_FIELD_NUMBER: _ClassVar[int]
    UNSEEN_CATEGORY_COUNT_FIELD_NUMBER: _ClassVar[int]
    MISSING_VALUE_COUNT_FIELD_NUMBER: _ClassVar[int]
    RECONSTRUCTION_FIELD_NUMBER: _ClassVar[int]
    detector: str
    version: int
    threshold: float
    alarm_rate: float
    scores: _containers.RepeatedScalarFieldContainer[float]
    normalized_scores: _containers.RepeatedScalarFieldContainer[float]
    p_values: _containers.RepeatedScalarFieldContainer[float]
    is_anomaly: _containers.RepeatedScalarFieldContainer[bool]
    unseen_category_count: int
    missing_value_count: int
    reconstruction: Tensor
    def __init__(self, detector: _Optional[str] = ..., version: _Optional[int] = ..., threshold: _Optional[float] = ..., alarm_rate: _Optional[float] = ..., scores: _Optional[_Iterable[float]] = ..., normalized_scores: _Optional[_Iterable[float]] = ..., p_values: _Optional[_Iterable[float]] = ..., is_anomaly: _Optional[_Iterable[bool]] = ..., unseen_category_count: _Optional[int] = ..., missing_value_count: _Optional[int] = ..., reconstruction: _Optional[_Union[Tensor, _Mapping]] = ...) -> None: ...

class ListDetectorsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListDetectorsResponse(_message.Message):
    __slots__ = ("detectors", "refused_bundles")
    DETECTORS_FIELD_NUMBER: _ClassVar[int]
    REFUSED_BUNDLES_FIELD_NUMBER: _ClassVar[int]
    detectors: _containers.RepeatedCompositeFieldContainer[Detector]
    refused_bundles: _containers.RepeatedCompositeFieldContainer[RefusedBundle]
    def __init__(self, detectors: _Optional[_Iterable[_Union[Detector, _Mapping]]] = ..., refused_bundles: _Optional[_Iterable[_Union[RefusedBundle, _Mapping]]] = ...) -> None: ...

class RefusedBundle(_message.Message):
    __slots__ = ("name", "version", "reason")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    reason: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class GetDetectorRequest(_message.Message):
    __slots__ = ("name", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class GetDetectorResponse(_message.Message):
    __slots__ = ("detector",)
    DETECTOR_FIELD_NUMBER: _ClassVar[int]
    detector: Detector
    def __init__(self, detector: _Optional[_Union[Detector, _Mapping]] = ...) -> None: ...

class Detector(_message.Message):
    __slots__ = ("name", "version", "kind", "readout", "labels", "image", "table", "threshold", "alarm_rate", "calibration_method", "calibration_row_count", "create_time")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    READOUT_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    TABLE_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    ALARM_RATE_FIELD_NUMBER: _ClassVar[int]
    CALIBRATION_METHOD_FIELD_NUMBER: _ClassVar[int]
    CALIBRATION_ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    kind: str
    readout: str
    labels: _containers.RepeatedScalarFieldContainer[str]
    image: ImageInput
    table: TableInput
    threshold: float
    alarm_rate: float
    calibration_method: str
    calibration_row_count: int
    create_time: _timestamp_pb2.Timestamp
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., kind: _Optional[str] = ..., readout: _Optional[str] = ..., labels: _Optional[_Iterable[str]] = ..., image: _Optional[_Union[ImageInput, _Mapping]] = ..., table: _Optional[_Union[TableInput, _Mapping]] = ..., threshold: _Optional[float] = ..., alarm_rate: _Optional[float] = ..., calibration_method: _Optional[str] = ..., calibration_row_count: _Optional[int] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ImageInput(_message.Message):
    __slots__ = ("channels", "height", "width")
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    channels: int
    height: int
    width: int
    def __init__(self, channels: _Optional[int] = ..., height: _Optional[int] = ..., width: _Optional[int] = ...) -> None: ...

class TableInput(_message.Message):
    __slots__ = ("columns", "source_columns", "label_column")
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_COLUMNS_FIELD_NUMBER: _ClassVar[int]
    LABEL_COLUMN_FIELD_NUMBER: _ClassVar[int]
    columns: _containers.RepeatedCompositeFieldContainer[ColumnSpec]
    source_columns: _containers.RepeatedScalarFieldContainer[str]
    label_column: str
    def __init__(self, columns: _Optional[_Iterable[_Union[ColumnSpec, _Mapping]]] = ..., source_columns: _Optional[_Iterable[str]] = ..., label_column: _Optional[str] = ...) -> None: ...

class ColumnSpec(_message.Message):
    __slots__ = ("name", "kind", "unit", "categories", "accepts_missing")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    ACCEPTS_MISSING_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: ColumnKind
    unit: str
    categories: _containers.RepeatedScalarFieldContainer[str]
    accepts_missing: bool
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[_Union[ColumnKind, str]] = ..., unit: _Optional[str] = ..., categories: _Optional[_Iterable[str]] = ..., accepts_missing: _Optional[bool] = ...) -> None: ...
