"""The catalogue: what the platform is made of. Data only.

It says which services, ports, logins, databases, buckets and settings exist and what a tier cannot do.
Nothing here knows how a tier runs a service.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from infra.rows import Bucket, Chart, ClusterPort, Database, Gap, Part, Port, Question, Service, Setting, Tool, Variable

TIERS = ("native", "compose", "kind")
PRODUCTION = "production"
"""The tier that is only read; `prod.*` change it. It is never chosen by itself."""

OVERLAY_CORE = "core"
OVERLAY_OBS = "obs"
OVERLAY_APPS = "apps"
OVERLAY_QUEUE = "queue"


STORE_LOGIN = ("MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD")
EXTERNAL_STORES: Mapping[str, str] = {"minio-datasets": "S3_DATASETS", "minio-results": "S3_RESULTS"}
"""Object store -> prefix of the settings that locate it when it is an external service."""

_DATABASE_VALUES = (("database.username", "POSTGRES_USER"), ("database.password", "POSTGRES_PASSWORD"))
_STORE_VALUES = (("auth.username", "MINIO_ROOT_USER"), ("auth.password", "MINIO_ROOT_PASSWORD"))

SERVICES: tuple[Service, ...] = (
    Service(
        "postgres",
        "PostgreSQL",
        OVERLAY_CORE,
        (Port("sql", "POSTGRES_PORT", 5432, "postgresql"),),
        login=("POSTGRES_USER", "POSTGRES_PASSWORD"),
        question=Question("sql"),
        program="postgres",
        parts=(Part("postgres", "POSTGRES_IMAGE", "", volume=True),),
        release="postgresql",
        values=(
            ("auth.username", "POSTGRES_USER"),
            ("auth.password", "POSTGRES_PASSWORD"),
            ("parameters.max_connections", "POSTGRES_MAX_CONNECTIONS"),
        ),
        contract=(Variable("DATABASE_URL", secret=True), Variable("USER_DATABASE_URL", secret=True)),
        secrets=("POSTGRES_PASSWORD",),
        generated=("POSTGRES_PASSWORD",),
    ),
    Service(
        "redis",
        "Redis (Valkey)",
        OVERLAY_CORE,
        (Port("redis", "REDIS_PORT", 6379, "redis"),),
        password="REDIS_PASSWORD",
        question=Question("redis"),
        program="redis",
        parts=(Part("redis", "REDIS_IMAGE", "", volume=True),),
        release="redis",
        values=(("auth.password", "REDIS_PASSWORD"),),
        contract=(Variable("REDIS_URL", "redis", secret=True),),
        secrets=("REDIS_PASSWORD",),
        generated=("REDIS_PASSWORD",),
    ),
    Service(
        "temporal",
        "Temporal",
        OVERLAY_CORE,
        (Port("grpc", "TEMPORAL_PORT", 7233), Port("ui", "TEMPORAL_UI_PORT", 8233, "http")),
        # Its web interface passes the question on to the server; gRPC would need 40 MB of libraries in the supervisor.
        question=Question("http", "ui", "/api/v1/namespaces/{namespace}"),
        program="temporal",
        parts=(
            Part("temporal", "TEMPORAL_IMAGE", "", only="full"),
            Part("temporal-schema", "TEMPORAL_ADMIN_TOOLS_IMAGE", "adminTools", only="full"),
            Part("temporal-setup", "TEMPORAL_ADMIN_TOOLS_IMAGE", only="full"),
            Part("temporal-ui", "TEMPORAL_UI_IMAGE", "ui", only="full"),
            Part("temporal", "TEMPORAL_DEV_IMAGE", "dev", volume=True, only="light"),
        ),
        release="temporal",
        values=_DATABASE_VALUES,
        contract=(Variable("TEMPORAL_HOST"), Variable("TEMPORAL_NAMESPACE")),
    ),
    Service(
        "minio-datasets",
        "Object store, datasets",
        OVERLAY_CORE,
        (
            Port("api", "MINIO_DATASETS_PORT", 9000, "http"),
            Port("console", "MINIO_DATASETS_CONSOLE_PORT", 9001, "http"),
        ),
        login=STORE_LOGIN,
        question=Question("s3"),
        program="object store",
        parts=(
            Part("minio-datasets", "MINIO_IMAGE", "", volume=True, only="silo"),
            Part("minio-datasets", "RUSTFS_IMAGE", only="rustfs"),
        ),
        release="minio",
        values=_STORE_VALUES,
        contract=(
            Variable("EXTERNAL_STORAGE_ENDPOINT"),
            Variable("EXTERNAL_STORAGE_ACCESS_KEY", secret=True),
            Variable("EXTERNAL_STORAGE_SECRET_KEY", secret=True),
        ),
        secrets=("MINIO_ROOT_PASSWORD", "S3_DATASETS_SECRET_KEY"),
        generated=("MINIO_ROOT_PASSWORD",),
    ),
    Service(
        "minio-results",
        "Object store, results",
        OVERLAY_CORE,
        (
            Port("api", "MINIO_RESULTS_PORT", 9002, "http"),
            Port("console", "MINIO_RESULTS_CONSOLE_PORT", 9003, "http"),
        ),
        login=STORE_LOGIN,
        question=Question("s3"),
        program="object store",
        parts=(
            Part("minio-results", "MINIO_IMAGE", "", volume=True, only="silo"),
            Part("minio-results", "RUSTFS_IMAGE", only="rustfs"),
            Part("minio-setup", "BUCKETS_IMAGE"),
            Part("minio-setup", "MINIO_IMAGE", only="external"),  # a curl that makes the buckets
        ),
        release="minio",
        values=_STORE_VALUES,
        contract=(
            Variable("INTERNAL_STORAGE_ENDPOINT"),
            Variable("INTERNAL_STORAGE_ACCESS_KEY", secret=True),
            Variable("INTERNAL_STORAGE_SECRET_KEY", secret=True),
        ),
        secrets=("MINIO_ROOT_PASSWORD", "S3_RESULTS_SECRET_KEY"),
        generated=("MINIO_ROOT_PASSWORD",),
    ),
    Service(
        "mlflow",
        "MLflow",
        OVERLAY_OBS,
        (Port("web", "MLFLOW_PORT", 5000, "http"),),
        needs=("postgres", "minio-results"),
        budget=120.0,
        question=Question(path="/health"),
        program="mlflow",
        parts=(Part("mlflow", "MLFLOW_IMAGE", ""),),
        release="mlflow",
        values=(
            *_DATABASE_VALUES,
            ("artifacts.accessKey", "MINIO_ROOT_USER"),
            ("artifacts.secretKey", "MINIO_ROOT_PASSWORD"),
        ),
        contract=(Variable("MLFLOW_TRACKING_URI", "web"),),
        secrets=("MLFLOW_ADMIN_PASSWORD",),
        generated=("MLFLOW_ADMIN_PASSWORD",),
    ),
    Service(
        "prometheus",
        "Prometheus",
        OVERLAY_OBS,
        (Port("web", "PROMETHEUS_PORT", 9090, "http"),),
        question=Question(path="/-/ready"),
        program="prometheus",
        parts=(
            Part("prometheus", "PROMETHEUS_IMAGE", "prometheus", volume=True, optional=True),
            Part("postgres-exporter", "POSTGRES_EXPORTER_IMAGE", "postgresExporter", optional=True),
            Part("redis-exporter", "REDIS_EXPORTER_IMAGE", "redisExporter", optional=True),
            Part("node-exporter", "NODE_EXPORTER_IMAGE", "nodeExporter", optional=True),
        ),
        release="observability",
        values=(
            ("postgresExporter.username", "POSTGRES_USER"),
            ("postgresExporter.password", "POSTGRES_PASSWORD"),
            ("redisExporter.password", "REDIS_PASSWORD"),
        ),
    ),
    Service(
        "loki",
        "Loki",
        OVERLAY_OBS,
        (Port("api", "LOKI_PORT", 3100, "http"),),
        question=Question(path="/ready"),
        parts=(
            Part("loki", "LOKI_IMAGE", "loki", volume=True, optional=True),
            Part("alloy", "ALLOY_IMAGE", "alloy", optional=True),
        ),
        release="observability",
    ),
    Service(
        "grafana",
        "Grafana",
        OVERLAY_OBS,
        (Port("web", "GRAFANA_PORT", 3200, "http"),),
        login=("GRAFANA_ADMIN_USER", "GRAFANA_ADMIN_PASSWORD"),
        needs=("loki",),
        question=Question(path="/api/health"),
        parts=(Part("grafana", "GRAFANA_IMAGE", "grafana", volume=True, optional=True),),
        release="observability",
        values=(("grafana.auth.username", "GRAFANA_ADMIN_USER"), ("grafana.auth.password", "GRAFANA_ADMIN_PASSWORD")),
        secrets=("GRAFANA_ADMIN_PASSWORD",),
        generated=("GRAFANA_ADMIN_PASSWORD",),
    ),
    Service(
        "clearml",
        "ClearML",
        OVERLAY_OBS,
        (
            Port("web", "CLEARML_WEB_PORT", 8080, "http"),
            Port("api", "CLEARML_API_PORT", 8008, "http"),
            Port("files", "CLEARML_FILES_PORT", 8081, "http"),
        ),
        parts=(
            *(Part(f"clearml-{name}", "CLEARML_IMAGE") for name in ("apiserver", "webserver", "fileserver")),
            Part("clearml-async-delete", "CLEARML_IMAGE"),
            Part("clearml-elasticsearch", "ELASTICSEARCH_IMAGE"),
            Part("clearml-mongo", "MONGO_IMAGE"),
            Part("clearml-redis", "CLEARML_REDIS_IMAGE"),
        ),
        contract=tuple(Variable(f"CLEARML_{role.upper()}_HOST", role) for role in ("api", "web", "files")),
        secrets=("CLEARML_SECRET", "CLEARML_API_SECRET_KEY"),
    ),
)

OBSERVABILITY: tuple[str, ...] = tuple(s.name for s in SERVICES if s.overlay == OVERLAY_OBS)

DATABASES: tuple[Database, ...] = (
    Database("platform", "jobs, experiments, metrics, export jobs"),
    Database("users", "accounts, organisations; shared"),
    Database("labeler", "datasets, annotations; another team owns the schema"),
)

BUCKETS: tuple[Bucket, ...] = (
    Bucket("training-datasets", "minio-datasets"),
    Bucket("model-weights", "minio-results"),
    Bucket("training-checkpoints", "minio-results"),
    Bucket("config-schemas", "minio-results"),
    Bucket("training-results", "minio-results"),
)
OBS_BUCKETS: tuple[Bucket, ...] = (Bucket("mlflow-artifacts", "minio-results"),)

MLFLOW_SCHEMA = "mlflow"
MLFLOW_TABLES = "dc11669786a5"
"""The version of the tables that MLflow 3.17.2 makes: the newest of its mlflow/store/db_migrations/versions."""

GRAFANA_ON_KIND = "prom-operator"
"""Grafana's password on kind where none is set: the one that kube-prometheus-stack gives it."""

TRAINING_NAMESPACE = "training"
"""Namespace of trainings, which are code of users: what is in it is theirs, and no other pod runs there."""
NAMESPACES = ("platform", "observability", "temporal", TRAINING_NAMESPACE)

CLUSTER_PORTS: tuple[ClusterPort, ...] = (
    ClusterPort("POSTGRES_PORT", "postgresql", "platform", 5432, 30543),
    ClusterPort("REDIS_PORT", "redis-master", "platform", 6379, 30679),
    # One store holds all buckets, so the ports of both lead to it.
    ClusterPort("MINIO_DATASETS_PORT", "minio", "platform", 9000, 30900),
    ClusterPort("MINIO_DATASETS_CONSOLE_PORT", "minio", "platform", 9001, 30901),
    ClusterPort("MINIO_RESULTS_PORT", "minio", "platform", 9000, 30900),
    ClusterPort("MINIO_RESULTS_CONSOLE_PORT", "minio", "platform", 9001, 30901),
    ClusterPort("TEMPORAL_PORT", "temporal-frontend", "temporal", 7233, 30700),
    ClusterPort("TEMPORAL_UI_PORT", "temporal-web", "temporal", 8080, 30233),
    ClusterPort("MLFLOW_PORT", "mlflow", "platform", 5000, 30500),
    ClusterPort("PROMETHEUS_PORT", "prometheus-operated", "observability", 9090, 30090),
    ClusterPort("GRAFANA_PORT", "kube-prometheus-stack-grafana", "observability", 80, 30030),
    ClusterPort("LOKI_PORT", "loki", "observability", 3100, 30100),
    ClusterPort("BACKEND_PORT", "platform-backend", "platform", 8000, 30800),
    ClusterPort("FRONTEND_PORT", "platform-frontend", "platform", 8080, 30880),
)

CHARTS: tuple[Chart, ...] = (
    Chart("postgresql", "platform", OVERLAY_CORE),
    Chart("redis", "platform", OVERLAY_CORE),
    Chart("minio", "platform", OVERLAY_CORE),
    Chart("temporal", "temporal", OVERLAY_CORE, needs=("postgresql",)),
    Chart("mlflow", "platform", OVERLAY_OBS, needs=("postgresql", "minio")),
    Chart("observability", "observability", OVERLAY_OBS),
    Chart(
        "platform",
        "platform",
        OVERLAY_APPS,
        needs=("postgresql", "redis", "minio", "temporal"),
        values=(
            *_DATABASE_VALUES,
            ("redis.password", "REDIS_PASSWORD"),
            ("temporal.namespace", "TEMPORAL_NAMESPACE"),
            ("storage.accessKey", "MINIO_ROOT_USER"),
            ("storage.secretKey", "MINIO_ROOT_PASSWORD"),
        ),
    ),
)

UPSTREAM_CHARTS: tuple[Chart, ...] = (
    Chart(
        "kube-prometheus-stack",
        "observability",
        OVERLAY_OBS,
        source="oci://ghcr.io/prometheus-community/charts/kube-prometheus-stack",
        # renovate: datasource=docker depName=ghcr.io/prometheus-community/charts/kube-prometheus-stack
        version="91.9.0",
    ),
    Chart(
        "loki",
        "observability",
        OVERLAY_OBS,
        source="oci://ghcr.io/grafana-community/helm-charts/loki",
        # renovate: datasource=docker depName=ghcr.io/grafana-community/helm-charts/loki
        version="18.13.8",
    ),
    Chart(
        "alloy",
        "observability",
        OVERLAY_OBS,
        needs=("loki",),
        source="https://grafana.github.io/helm-charts",
        chart="alloy",
        # renovate: datasource=helm depName=alloy registryUrl=https://grafana.github.io/helm-charts
        version="1.11.1",
    ),
    Chart(
        "cert-manager",
        "cert-manager",
        OVERLAY_CORE,
        source="oci://quay.io/jetstack/charts/cert-manager",
        # renovate: datasource=docker depName=quay.io/jetstack/charts/cert-manager
        version="v1.21.2",
    ),
    Chart(
        "cloudnative-pg",
        "cnpg-system",
        OVERLAY_CORE,
        source="https://cloudnative-pg.github.io/charts",
        chart="cloudnative-pg",
        # renovate: datasource=helm depName=cloudnative-pg registryUrl=https://cloudnative-pg.github.io/charts
        version="0.29.1",
    ),
    Chart(
        "plugin-barman-cloud",
        "cnpg-system",
        OVERLAY_CORE,
        needs=("cert-manager", "cloudnative-pg"),
        source="https://cloudnative-pg.github.io/charts",
        chart="plugin-barman-cloud",
        # renovate: datasource=helm depName=plugin-barman-cloud registryUrl=https://cloudnative-pg.github.io/charts
        version="0.8.1",
    ),
    Chart(
        "jobset",
        "jobset-system",
        OVERLAY_QUEUE,
        source="oci://registry.k8s.io/jobset/charts/jobset",
        # renovate: datasource=docker depName=registry.k8s.io/jobset/charts/jobset
        version="0.12.0",
        image=("image", "JOBSET_IMAGE"),
    ),
    Chart(
        "kueue",
        "kueue-system",
        OVERLAY_QUEUE,
        needs=("jobset",),
        source="oci://registry.k8s.io/kueue/charts/kueue",
        # renovate: datasource=docker depName=registry.k8s.io/kueue/charts/kueue
        version="0.19.2",
        image=("controllerManager.manager.image", "KUEUE_IMAGE"),
    ),
)

BACKEND_IMAGE, FRONTEND_IMAGE = "platform-backend:dev", "platform-frontend:dev"
"""The images that app.build makes, where the settings of these names are empty."""
PYTHON_IMAGE = "python:3.12.12-slim-bookworm"
"""The base image that they are built from."""

_PLAIN_SETTINGS: tuple[Setting, ...] = (
    Setting("POSTGRES_USER", "admin", "text", "superuser of PostgreSQL"),
    Setting("POSTGRES_PASSWORD", "devpass", "secret", "its password"),
    Setting("POSTGRES_MAX_CONNECTIONS", "250", "count", "connections that PostgreSQL takes; Temporal holds up to 120"),
    Setting("REDIS_PASSWORD", "", "secret", "password of Redis; empty means none"),
    Setting(
        "MINIO_ROOT_USER",
        "minioadmin",
        "text",
        "access key of both object stores",
        check=("access key", "3 characters"),
    ),
    Setting(
        "MINIO_ROOT_PASSWORD",
        "minioadmin",
        "secret",
        "secret key of both object stores; 8 characters or more",
        check=("8 characters", "no blank ends", "no comma"),
    ),
    Setting("GRAFANA_ADMIN_USER", "admin", "text", "user of Grafana"),
    Setting("GRAFANA_ADMIN_PASSWORD", "admin", "secret", "password of Grafana"),
    Setting(
        "MLFLOW_ADMIN_PASSWORD",
        "",
        "secret",
        "password of MLflow's user admin, 12 characters or more; empty: no login; native and compose tiers",
        check=("empty or 12 characters",),
    ),
    Setting("TEMPORAL_NAMESPACE", "default", "text", "Temporal namespace for applications"),
    Setting(
        "CLEARML_SECRET",
        "devpass",
        "secret",
        "ClearML's signing key, which its own programs also log in with; if unset, `invoke` generates a private one",
    ),
    Setting("CLEARML_API_ACCESS_KEY", "platform", "text", "access key of applications in ClearML"),
    Setting("CLEARML_API_SECRET_KEY", "devpass", "secret", "its secret key"),
    Setting("S3_DATASETS_ENDPOINT", "", "text", "external S3 service that holds the datasets", check=("address",)),
    Setting("S3_DATASETS_ACCESS_KEY", "", "text", "access key for it; empty: MINIO_ROOT_USER", check=("access key",)),
    Setting("S3_DATASETS_SECRET_KEY", "", "secret", "its secret key; empty: MINIO_ROOT_PASSWORD"),
    Setting("S3_RESULTS_ENDPOINT", "", "text", "external S3 service that holds the results", check=("address",)),
    Setting("S3_RESULTS_ACCESS_KEY", "", "text", "access key for it; empty: MINIO_ROOT_USER", check=("access key",)),
    Setting("S3_RESULTS_SECRET_KEY", "", "secret", "its secret key; empty: MINIO_ROOT_PASSWORD"),
    Setting("S3_REGION", "us-east-1", "text", "region that S3 requests are signed for"),
    Setting(
        "OBSERVABILITY_BACKENDS",
        "",
        "list",
        "where trainings are tracked; empty: database, and mlflow while it runs",
        ("database", "mlflow", "clearml"),
    ),
    Setting("PLATFORM_TIER", "", "choice", "tier to use when --tier is not given", (*TIERS, PRODUCTION)),
    Setting("PLATFORM_SITE", "", "text", "site of sites/ that --tier production reads"),
    Setting("PLATFORM_STATE_DIR", "", "path", "where data, logs and state live; default: .platform in the checkout"),
    Setting("PLATFORM_POSTGRES_BIN", "", "path", "directory with PostgreSQL's programs, instead of the bundled ones"),
    Setting("PLATFORM_POSTGRES_OS_USER", "", "text", "operating system user to run PostgreSQL as when started by root"),
    Setting("PLATFORM_REDIS_SERVER", "", "program", "valkey-server or redis-server to use, instead of the bundled one"),
    Setting("PLATFORM_TEMPORAL", "", "program", "temporal (the CLI) to use, instead of the bundled one"),
    Setting(
        "PLATFORM_S3_SERVER", "", "program", "S3 server: rclone, silo, minio, rustfs, weed or versitygw, or a path"
    ),
    Setting("PLATFORM_S3_ORIGINS", "", "origins", "web pages that may use the object stores: origins, commas between"),
    Setting("PLATFORM_PROMETHEUS", "", "program", "prometheus to use; default: the one on PATH"),
    Setting("PLATFORM_PASS_ENV", "", "text", "variables of the shell that servers and the worker get too, e.g. A,B"),
    Setting(
        "PLATFORM_NOTIFY",
        "",
        "secret",
        "called when a training ends: a program with arguments, or the address of a webhook",
        check=("command or webhook",),
    ),
    Setting(
        "PLATFORM_PRIVATE",
        "",
        "choice",
        "yes: random passwords for this stack, instead of the documented ones; remembered",
        ("yes", "no"),
    ),
    Setting("APP_ALLOWED_HOSTS", "", "text", "names, beside localhost, that browsers may call the application by"),
    Setting(
        "PLATFORM_STACK",
        "",
        "text",
        "Compose project; default: platform; for a second checkout platform-<hash>",
        check=("compose project",),
    ),
    Setting(
        "PLATFORM_S3_ENGINE",
        "silo",
        "choice",
        "object store to run in containers; external: use S3_DATASETS_ENDPOINT and S3_RESULTS_ENDPOINT",
        ("silo", "rustfs", "external"),
    ),
    Setting(
        "PLATFORM_METRICS_DIR",
        "",
        "path",
        "directory with *.prom files; default: metrics in the state directory; compose/obs/metrics for Compose alone",
    ),
    Setting("PLATFORM_DOCKER_SOCKET", "", "path", "Docker's socket, for the logs; default: /var/run/docker.sock"),
    Setting(
        "PLATFORM_LIGHT", "", "choice", "yes: use Temporal's development server instead of the full one", ("yes", "no")
    ),
    Setting(
        "PLATFORM_LEAVE_OUT", "", "text", "observability services that --obs does not start, e.g. clearml,grafana,alloy"
    ),
    Setting(
        "PLATFORM_IMAGE_MIRRORS",
        "mirror.gcr.io",
        "text",
        "registries to try when Docker Hub rate-limits pulls; empty: none",
        empty=True,
    ),
    Setting(
        "PLATFORM_CHARTS",
        "",
        "path",
        "folder with upstream charts as <release>-<version>.tgz, to use no registry",
    ),
    Setting("PLATFORM_KIND_BIN", "", "path", "directory with kind, kubectl and helm, searched before PATH"),
    Setting("KIND_NODE_IMAGE", "", "text", "node image for kind; default: the one in kind/cluster.yaml"),
    Setting("PLATFORM_CA_BUNDLE", "", "path", "additional CA certificates (PEM) that the kind nodes trust"),
)

KUBE_TOOLS: tuple[Tool, ...] = (
    Tool("kind", (0, 31), "https://kind.sigs.k8s.io/docs/user/quick-start/#installation"),
    Tool("kubectl", (1, 28), "https://kubernetes.io/docs/tasks/tools/"),
    Tool("helm", (3, 18), "https://helm.sh/docs/intro/install/"),
)

APP_PORTS = {
    "backend": Port("backend", "BACKEND_PORT", 8000, "http"),
    "frontend": Port("frontend", "FRONTEND_PORT", 8001, "http"),
}
"""Ports of the reference application on the host."""

PRIORITIES: Mapping[str, int] = {"low": -100, "normal": 0, "high": 100}
"""Priorities of trainings in a queue; what names none counts as 0."""

TEMPORAL_METRICS_PORT = Port("metrics", "TEMPORAL_METRICS_PORT", 8234, "http")

CLEARML_PORTS = (
    Port("Elasticsearch", "CLEARML_ELASTICSEARCH_PORT", 9200, "http"),
    Port("MongoDB", "CLEARML_MONGO_PORT", 27018),
    Port("Redis", "CLEARML_REDIS_PORT", 6380),
)
"""Ports of the databases that start with ClearML."""


STORE_PORTS: Mapping[str, Port] = {
    "minio-datasets": Port("internal", "MINIO_DATASETS_INTERNAL_PORT", 19000),
    "minio-results": Port("internal", "MINIO_RESULTS_INTERNAL_PORT", 19020),
}
"""First of STORE_SPAN ports in a row on which the parts of an object store talk to each other (SeaweedFS only)."""
STORE_SPAN = 9
STORE_ADMIN, STORE_FAR = 7, 10_000
"""The place of SeaweedFS' admin port in the row, and the distance behind it at which its workers look for gRPC."""


def _port_settings() -> tuple[Setting, ...]:
    ports = [(s.title, p) for s in SERVICES for p in s.ports] + [("Temporal", TEMPORAL_METRICS_PORT)]
    ports += [("ClearML's", port) for port in CLEARML_PORTS]
    ports += [("application", port) for port in APP_PORTS.values()]
    single = (Setting(p.setting, str(p.default), "port", f"{title}, {p.role} port") for title, p in ports)
    return (*single, *(_store_ports(name, port) for name, port in STORE_PORTS.items()))


def _store_ports(name: str, port: Port) -> Setting:
    far = STORE_ADMIN + STORE_FAR
    text = f"{name}, first of {STORE_SPAN} internal ports (SeaweedFS), with one more {far} behind it"
    return Setting(port.setting, str(port.default), "port", text, span=STORE_SPAN, far=far)


IMAGES: Mapping[str, str] = {
    "POSTGRES_IMAGE": "PostgreSQL",
    "REDIS_IMAGE": "Valkey or Redis",
    "MINIO_IMAGE": "the object store",
    "RUSTFS_IMAGE": "RustFS, the second object store",
    "BUCKETS_IMAGE": "the one-off container that creates the buckets",
    "TEMPORAL_IMAGE": "Temporal's server",
    "TEMPORAL_ADMIN_TOOLS_IMAGE": "Temporal's schema tools",
    "TEMPORAL_UI_IMAGE": "Temporal's web interface",
    "TEMPORAL_DEV_IMAGE": "Temporal's development server",
    "MLFLOW_IMAGE": "MLflow",
    "LOKI_IMAGE": "Loki",
    "ALLOY_IMAGE": "Grafana Alloy",
    "PROMETHEUS_IMAGE": "Prometheus",
    "GRAFANA_IMAGE": "Grafana",
    "NODE_EXPORTER_IMAGE": "the exporter of the host's metrics",
    "POSTGRES_EXPORTER_IMAGE": "the exporter of PostgreSQL's metrics",
    "REDIS_EXPORTER_IMAGE": "the exporter of Redis' metrics",
    "CLEARML_IMAGE": "ClearML's server",
    "ELASTICSEARCH_IMAGE": "Elasticsearch, for ClearML",
    "MONGO_IMAGE": "MongoDB, for ClearML",
    "CLEARML_REDIS_IMAGE": "Redis, for ClearML",
    "JOBSET_IMAGE": "JobSet's controller, for kind.up --queue",
    "KUEUE_IMAGE": "Kueue's controller, for kind.up --queue",
    "BACKEND_IMAGE": "the backend and of training Jobs",
    "FRONTEND_IMAGE": "the frontend",
    "TRAINING_IMAGE": "training Jobs; default: the backend's image",
    "PYTHON_IMAGE": "Python that app.build builds on",
}
"""Settings that replace an image's reference, for mirrors and sites without a network; the files own the default."""


def _image_settings() -> tuple[Setting, ...]:
    return tuple(Setting(name, "", "text", f"image of {what}") for name, what in IMAGES.items())


SETTINGS: Mapping[str, Setting] = {s.name: s for s in (*_port_settings(), *_PLAIN_SETTINGS, *_image_settings())}


def variables() -> tuple[Variable, ...]:
    """Return the lines of the `.env` contract, in order: the core, where trainings are tracked, the trackers."""
    core = [v for s in SERVICES if s.overlay == OVERLAY_CORE for v in s.contract]
    trackers = [v for s in reversed(SERVICES) if s.overlay != OVERLAY_CORE for v in s.contract]
    return (*core, Variable("OBSERVABILITY_BACKENDS"), *trackers)


CONTRACT_NAMES: tuple[str, ...] = tuple(variable.name for variable in variables())

MLFLOW_LOGIN = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
"""Names of MLflow's own clients, in the contract only where its server wants a login."""

MLFLOW_THROUGH_SERVER: Mapping[str, str] = {
    "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false",
    "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "false",
}
"""Settings of MLflow's client. Else its server (3.17) signs addresses of the object store as it knows that itself: from
outside the containers they lead nowhere, and a download hangs for minutes."""

FAMILIAR_NAMES: tuple[str, ...] = (
    *("AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"),
    *("PGHOST", "PGPORT", "PGUSER", "PGPASSWORD", "PGDATABASE"),
    *("LABELER_DATABASE_URL", "TEMPORAL_ADDRESS"),
    *MLFLOW_THROUGH_SERVER,
    *(f"BUCKET_{bucket.name.upper().replace('-', '_')}" for bucket in BUCKETS),
)
"""Names that `invoke env` gives besides the contract, which SDKs, libpq and Temporal's tools read by themselves."""

OPTIONAL_NAMES: Mapping[str, tuple[str, ...]] = {
    s.name: tuple(v.name for v in s.contract) for s in SERVICES if s.name in OBSERVABILITY and s.contract
}
"""The names of the contract that are there only where an observability service runs, by service."""

NO_DOUBLE_SLASH, SHORT_PARTS = "write keys with single slashes", "keep each part of a key below 256 bytes"

GAPS: tuple[Gap, ...] = (
    Gap("native", "loki", "Loki has no package that runs without a container", "invoke logs"),
    Gap("native", "grafana", "Grafana has no package that runs without a container", "MLflow, invoke status"),
    Gap("native", "clearml", "ClearML's server is only available as containers", "MLflow"),
    Gap("kind", "clearml", "this repository has no Helm chart for ClearML", "MLflow, or the compose tier"),
    Gap("kind", "mlflow-login", "the chart of MLflow sets up no login", "the native or the compose tier"),
    Gap("kind", "separate-stores", "a single object store holds all buckets", "the buckets have different names"),
    Gap("external", "s3-console", "an external S3 service has its own console", "ask the operator of that service"),
    Gap("rclone", "s3-console", "rclone has no web console", "any S3 client, with the values of invoke env"),
    Gap("rclone", "s3-conditional-write", "rclone ignores If-Match and If-None-Match: a create-only write overwrites"),
    Gap("rclone", "s3-metadata-durable", "rclone forgets user metadata and content types when it restarts"),
    Gap("rclone", "s3-versioning", "rclone keeps no versions of objects"),
    Gap("rclone", "s3-upload-part-copy", "rclone cannot copy a part from another object"),
    Gap("rclone", "s3-key-file-and-prefix", "rclone cannot store both a key and keys below it, such as a and a/b"),
    Gap("rclone", "s3-closed-to-pages", "rclone lets every web page read with a signed address", "`--private`"),
    Gap(
        "rclone",
        "s3-range",
        "rclone sends the checksum of a whole object with a part of it, so that boto3 refuses the part",
        "boto3 with response_checksum_validation='when_required'",
    ),
    Gap("rclone", "s3-checksum", "rclone stores what has not the checksum that it was sent with"),
    Gap(
        "rclone",
        "s3-presigned-v2",
        "rclone refuses addresses that are signed by SigV2, which boto3 does by default",
        "boto3 with signature_version='s3v4'",
    ),
    Gap("rclone", "s3-key-double-slash", "rclone refuses a key with // in it, as in a//b", NO_DOUBLE_SLASH),
    Gap(
        "rclone",
        "s3-key-long-segment",
        "rclone refuses a key with more than 255 bytes between two slashes",
        SHORT_PARTS,
    ),
    Gap(
        "versitygw", "s3-key-file-and-prefix", "versitygw cannot store both a key and keys below it, such as a and a/b"
    ),
    Gap("weed", "s3-console", "SeaweedFS has no console for buckets", "invoke minio.ls, and any S3 client"),
    Gap(
        "weed",
        "s3-key-double-slash",
        "SeaweedFS lists a key with // in it, as in a//b, with one slash",
        NO_DOUBLE_SLASH,
    ),
    Gap(
        "weed",
        "s3-key-long-segment",
        "SeaweedFS refuses a key with more than 255 bytes between two slashes",
        SHORT_PARTS,
    ),
    Gap("silo", "s3-key-double-slash", "Silo refuses a key with // in it, as in a//b", NO_DOUBLE_SLASH),
    Gap("silo", "s3-key-long-segment", "Silo refuses a key with more than 255 bytes between two slashes", SHORT_PARTS),
    Gap("minio", "s3-key-double-slash", "MinIO refuses a key with // in it, as in a//b", NO_DOUBLE_SLASH),
    Gap(
        "minio", "s3-key-long-segment", "MinIO refuses a key with more than 255 bytes between two slashes", SHORT_PARTS
    ),
)


def service(name: str) -> Service:
    """Return the service of that name; KeyError when there is none."""
    for candidate in SERVICES:
        if candidate.name == name:
            return candidate
    raise KeyError(f"no service {name}")


def with_needs(names: Sequence[str]) -> tuple[str, ...]:
    """Return the services and everything they need, in the order of the catalogue."""
    wanted = set(names)
    for entry in reversed(SERVICES):  # a service stands behind what it needs
        if entry.name in wanted:
            wanted |= set(entry.needs)
    return tuple(s.name for s in SERVICES if s.name in wanted)


def gaps(*where: str) -> tuple[Gap, ...]:
    """List what the given tier and engines cannot do."""
    return tuple(g for g in GAPS if g.where in where)


def offered(tier: str) -> tuple[Service, ...]:
    """Return the services that a tier can run, core first."""
    missing = {g.feature for g in gaps(tier)}
    return tuple(s for s in SERVICES if s.name not in missing)
