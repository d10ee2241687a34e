"""Settings, from the environment. Without any, everything runs embedded on this machine alone.

DATABASE_URL   SQLite in the state folder, or postgres://…
REDIS_URL      empty: tokens in the database, live messages over a local socket
PUBLIC_URL     https://… switches on what needs HTTPS; empty: `up` binds to loopback only
SECRET_KEY     generated into the state folder for SQLite; required for anything else
STATE_DIR      database, key, sockets and files (default: var/ beside manage.py)
FETCH_ALLOW_PRIVATE   host:port pairs that may be fetched although they are private (default: none)
NER_ENGINE     empty: our own model finds names; spacy:PIPELINE: an installed spaCy pipeline
JOBS           JSON object; overrides of jobs.conf
"""

import os
import re
import secrets
import warnings
from pathlib import Path
from urllib.parse import urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured

# Workers fork; threads that a numeric library starts at import would not survive it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

BASE_DIR = Path(__file__).resolve().parent.parent
env = environ.Env()

DEBUG = env.bool("DEBUG", False)

# -- state folder ---------------------------------------------------------------------------------
STATE_DIR = Path(env.str("STATE_DIR", str(BASE_DIR / "var"))).resolve()
STATE_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)
LIVE_SOCKET = STATE_DIR / "live.sock"
MEDIA_ROOT = STATE_DIR / "artifacts"
FILE_UPLOAD_PERMISSIONS = 0o600

# -- database -------------------------------------------------------------------------------------
DATABASE_URL = env.str("DATABASE_URL", "")
EMBEDDED_DATABASE = not DATABASE_URL or DATABASE_URL.startswith("sqlite")
DATABASES = {"default": env.db_url_config(DATABASE_URL or f"sqlite:///{STATE_DIR}/fieldwork.sqlite3")}
if EMBEDDED_DATABASE:
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 30,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA cache_size=-8000;",
    }
    DATABASES["default"]["TEST"] = {"NAME": STATE_DIR / "test.sqlite3"}
else:
    # A connection per request costs 4 ms. psycopg's pool would save them, but after a restart of the server it waits
    # 1, 2, 4, 8 s for each dead connection that it finds: pages failed for half a minute.
    DATABASES["default"]["OPTIONS"] = {"connect_timeout": 10}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"


def generated_secret_key() -> str:
    """The key of an embedded installation: made once, readable by its owner alone."""
    path = STATE_DIR / "secret_key"
    try:
        with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as stream:
            stream.write(secrets.token_urlsafe(64))
    except FileExistsError:
        pass
    return path.read_text()


SECRET_KEY = env.str("SECRET_KEY", "")
if not SECRET_KEY:
    if not EMBEDDED_DATABASE:
        raise ImproperlyConfigured(
            "SECRET_KEY is not set. With DATABASE_URL pointing to a server all machines must share one; "
            "make it with: python -c 'import secrets; print(secrets.token_urlsafe(64))'"
        )
    SECRET_KEY = generated_secret_key()

# -- where it is reached --------------------------------------------------------------------------
PUBLIC_URL = env.str("PUBLIC_URL", "").rstrip("/")
_public = urlsplit(PUBLIC_URL)
if PUBLIC_URL and (_public.scheme not in ("http", "https") or not _public.hostname):
    raise ImproperlyConfigured(f"PUBLIC_URL must look like https://fieldwork.example.org, not {PUBLIC_URL!r}.")
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=[_public.hostname] if PUBLIC_URL else ["localhost", "127.0.0.1", "[::1]"])
if PUBLIC_URL:
    CSRF_TRUSTED_ORIGINS = [f"{_public.scheme}://{_public.netloc}"]
if _public.scheme == "https":
    SECURE_SSL_REDIRECT = True
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SECURE_HSTS_SECONDS = 31_536_000
    SECURE_HSTS_INCLUDE_SUBDOMAINS = True
    SECURE_HSTS_PRELOAD = True
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"

INSTALLED_APPS = [
    "unfold",
    "django.forms",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "channels",
    "rest_framework",
    "rest_framework.authtoken",
    "django_filters",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_q",
    "jobs",
    "osint",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "osint.middleware.one_language_for_programs",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "osint.middleware.content_security_policy",
    "osint.middleware.viewer_time_zone",
    "osint.middleware.buttons_stand_on_pages",
]

ROOT_URLCONF = "osint.urls"
ASGI_APPLICATION = "osint.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "jobs.views.navigation",
            ]
        },
    }
]
FORM_RENDERER = "django.forms.renderers.TemplatesSetting"


AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "dashboard"
LOGOUT_REDIRECT_URL = "login"

LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("de", "Deutsch")]
LOCALE_PATHS = [BASE_DIR / "osint" / "locale"]
LANGUAGE_COOKIE_SAMESITE = "Lax"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = True
USE_THOUSAND_SEPARATOR = True

STATIC_URL = "/static/"
STATIC_ROOT = STATE_DIR / "static"
STATICFILES_DIRS = [BASE_DIR / "static"]
WHITENOISE_USE_FINDERS = True  # nothing to collect on the embedded default
STATIC_ROOT.mkdir(exist_ok=True)

EMAIL_CONFIG = env.email_url("EMAIL_URL", default="consolemail://")
vars().update(EMAIL_CONFIG)
EMAIL_TIMEOUT = 10
DEFAULT_FROM_EMAIL = env.str("DEFAULT_FROM_EMAIL", "fieldwork@localhost")

# -- live and queue -------------------------------------------------------------------------------
REDIS_URL = env.str("REDIS_URL", "")
if REDIS_URL:
    CHANNEL_LAYERS = {
        "default": {
            # The core layer loses messages at 200 clients and closes idle sockets with redis-py 8.
            "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
            "CONFIG": {"hosts": [{"address": REDIS_URL, "socket_timeout": None}], "prefix": "fieldwork"},
        }
    }
else:
    CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}

JOBS = env.json("JOBS", {})
JOBS_SUBJECTS = "osint.models.subjects_of"

Q_CLUSTER = {
    "name": "default",  # also the salt that signs tokens, so it is the same for every queue
    "ALT_CLUSTERS": {},  # must exist for any other queue name
    "workers": JOBS.get("max_concurrent_jobs", 10),
    "queue_limit": JOBS.get("max_concurrent_jobs", 10),
    "save_limit": -1,
    "recycle": 1_000_000,
    "ack_failures": True,
    "timeout": None,
    "retry": 60,
    "max_attempts": 1,
    "catch_up": False,
    "poll": 0.02,
    "label": "Tokens and schedules",
    "log_level": "WARNING",
}
if REDIS_URL:
    Q_CLUSTER["redis"] = REDIS_URL
    Q_CLUSTER["broker_class"] = "jobs.broker.RedisTokenBroker"
else:
    Q_CLUSTER["orm"] = "default"
    Q_CLUSTER["broker_class"] = "jobs.broker.TokenBroker"
# django-q2 warns about `timeout=None`, which is right here: the runner limits the time of a job.
warnings.filterwarnings("ignore", message="Retry and timeout are misconfigured")

# -- fetching -------------------------------------------------------------------------------------
FETCH_ALLOW_PRIVATE = env.list("FETCH_ALLOW_PRIVATE", default=[])
for _pair in FETCH_ALLOW_PRIVATE:
    if not re.fullmatch(r"(\[[0-9a-f:]+\]|[a-z0-9.-]+):\d{1,5}", _pair):
        raise ImproperlyConfigured(f"FETCH_ALLOW_PRIVATE takes host:port pairs such as 127.0.0.1:8001, not {_pair!r}.")

# -- reading --------------------------------------------------------------------------------------
NER_ENGINE = env.str("NER_ENGINE", "")

# -- API ------------------------------------------------------------------------------------------
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "rest_framework.authentication.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "jobs.api.problems.problem_details",
    "DEFAULT_THROTTLE_CLASSES": ["rest_framework.throttling.UserRateThrottle"],
    "DEFAULT_THROTTLE_RATES": {"user": "6000/hour"},
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Fieldwork API",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.IsAuthenticated"],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "ENUM_NAME_OVERRIDES": {"JobStatus": "jobs.states.Status", "LogLevel": "jobs.states.Level"},
}
# The accent of static/css/app.css in the shades that the admin asks for.
ACCENT = {50: "#eef5ff", 100: "#e6f1ff", 200: "#c3dcfb", 300: "#9cc6f8", 400: "#79b5f8", 500: "#4584d4", 600: "#2460b7"}
ACCENT |= {700: "#1d4f98", 800: "#1b4179", 900: "#1b2c44", 950: "#111d2e"}
UNFOLD = {
    "SITE_TITLE": "Fieldwork",
    "SITE_HEADER": "Fieldwork",
    "SITE_URL": "/",
    "SITE_ICON": "/static/favicon.svg",
    "COLORS": {"primary": {str(shade): color for shade, color in ACCENT.items()}},
}

DATA_UPLOAD_MAX_MEMORY_SIZE = 2_500_000

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname} {name}: {message}", "style": "{"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": env.str("LOG_LEVEL", "WARNING")},
    # trafilatura complains of each page that has no text; what could not be read is in the items of the job
    "loggers": {"django.server": {"level": "WARNING"}, "trafilatura": {"level": "CRITICAL"}, "htmldate": {"level": "CRITICAL"}},
}
