"""HTTP to Django, WebSockets to the consumers."""

import gc
import os

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.core.asgi import get_asgi_application
from django.urls import get_resolver

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "osint.settings")
http = get_asgi_application()

from jobs.routing import websocket_urlpatterns  # noqa: E402 - models load after Django is set up

application = ProtocolTypeRouter(
    {
        "http": http,
        "websocket": AllowedHostsOriginValidator(AuthMiddlewareStack(URLRouter(websocket_urlpatterns))),
    }
)
# What is loaded by now stays. A full collection that looks at all of it would hold up every twentieth page, and live messages, by 60 ms.
get_resolver().url_patterns  # noqa: B018 - loads the views
gc.collect()
gc.freeze()
