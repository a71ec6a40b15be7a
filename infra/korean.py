"""Korean for the texts of the catalogue that README.ko.md shows, by the English text."""

from __future__ import annotations

from collections.abc import Mapping

TEXTS: Mapping[str, str] = {
    # Titles of services
    "PostgreSQL": "PostgreSQL",
    "Redis (Valkey)": "Redis (Valkey)",
    "Temporal": "Temporal",
    "Object store, datasets": "오브젝트 스토리지(데이터셋)",
    "Object store, results": "오브젝트 스토리지(결과)",
    "MLflow": "MLflow",
    "Prometheus": "Prometheus",
    "Loki": "Loki",
    "Grafana": "Grafana",
    "ClearML": "ClearML",
    # Reasons of gaps
    "Loki has no package that runs without a container": "Loki는 컨테이너 없이 실행할 수 있는 패키지가 없음",
    "Grafana has no package that runs without a container": "Grafana는 컨테이너 없이 실행할 수 있는 패키지가 없음",
    "ClearML's server is only available as containers": "ClearML 서버는 컨테이너로만 배포됨",
    "this repository has no Helm chart for ClearML": "이 저장소에는 ClearML용 Helm 차트가 없음",
    "the chart of MLflow sets up no login": "MLflow 차트는 로그인을 설정하지 않음",
    "the native or the compose tier": "native 또는 compose 티어",
    "a single object store holds all buckets": "모든 버킷이 오브젝트 스토리지 하나에 있음",
    "an external S3 service has its own console": "콘솔은 외부 S3 서비스의 것을 사용",
    "rclone has no web console": "rclone에는 웹 콘솔이 없음",
    "rclone ignores If-Match and If-None-Match: a create-only write overwrites": (
        "rclone은 If-Match와 If-None-Match를 무시함: 새로 만들 때만 허용해야 할 쓰기가 기존 객체를 덮어씀"
    ),
    "rclone forgets user metadata and content types when it restarts": (
        "rclone을 재시작하면 사용자 메타데이터와 Content-Type이 사라짐"
    ),
    "rclone keeps no versions of objects": "rclone은 객체 버전을 보관하지 않음",
    "rclone cannot copy a part from another object": "rclone은 다른 객체에서 파트를 복사할 수 없음(UploadPartCopy)",
    "rclone cannot store both a key and keys below it, such as a and a/b": (
        "rclone은 a와 a/b처럼 키와 그 하위 키를 함께 저장할 수 없음"
    ),
    "versitygw cannot store both a key and keys below it, such as a and a/b": (
        "versitygw는 a와 a/b처럼 키와 그 하위 키를 함께 저장할 수 없음"
    ),
    "rclone lets every web page read with a signed address": (
        "rclone은 서명된 주소가 있으면 모든 웹 페이지에 읽기를 허용함"
    ),
    "rclone sends the checksum of a whole object with a part of it, so that boto3 refuses the part": (
        "rclone은 객체의 일부를 보낼 때 전체 객체의 체크섬을 함께 보내므로 boto3가 거부함"
    ),
    "boto3 with response_checksum_validation='when_required'": (
        "boto3에서 response_checksum_validation='when_required' 설정"
    ),
    "rclone stores what has not the checksum that it was sent with": (
        "rclone은 함께 보낸 체크섬과 맞지 않는 내용도 저장함"
    ),
    "rclone refuses addresses that are signed by SigV2, which boto3 does by default": (
        "rclone은 boto3의 기본 방식인 SigV2로 서명된 주소를 거부함"
    ),
    "boto3 with signature_version='s3v4'": "boto3에서 signature_version='s3v4' 설정",
    "SeaweedFS has no console for buckets": "SeaweedFS에는 버킷 콘솔이 없음",
    "invoke minio.ls, and any S3 client": "invoke minio.ls 또는 다른 S3 클라이언트",
    "SeaweedFS lists a key with // in it, as in a//b, with one slash": (
        "SeaweedFS는 a//b처럼 //가 포함된 키를 슬래시 하나로 표시함"
    ),
    "SeaweedFS refuses a key with more than 255 bytes between two slashes": (
        "SeaweedFS는 슬래시 사이가 255바이트를 넘는 키를 거부함"
    ),
    "rclone refuses a key with // in it, as in a//b": "rclone은 a//b처럼 //가 포함된 키를 거부함",
    "rclone refuses a key with more than 255 bytes between two slashes": (
        "rclone은 슬래시 사이가 255바이트를 넘는 키를 거부함"
    ),
    "Silo refuses a key with // in it, as in a//b": "Silo는 a//b처럼 //가 포함된 키를 거부함",
    "Silo refuses a key with more than 255 bytes between two slashes": (
        "Silo는 슬래시 사이가 255바이트를 넘는 키를 거부함"
    ),
    "MinIO refuses a key with // in it, as in a//b": "MinIO는 a//b처럼 //가 포함된 키를 거부함",
    "MinIO refuses a key with more than 255 bytes between two slashes": (
        "MinIO는 슬래시 사이가 255바이트를 넘는 키를 거부함"
    ),
    # What to use instead
    "`--private`": "`--private`",
    "write keys with single slashes": "키에 슬래시를 하나씩만 사용",
    "keep each part of a key below 256 bytes": "키의 각 부분을 256바이트 미만으로 유지",
    "ask the operator of that service": "해당 서비스 운영자에게 문의",
    "invoke logs": "invoke logs",
    "MLflow, invoke status": "MLflow, invoke status",
    "MLflow, or the compose tier": "MLflow 또는 compose 티어",
    "the buckets have different names": "버킷마다 이름이 다름",
    "any S3 client, with the values of invoke env": "invoke env의 값과 S3 클라이언트",
}
