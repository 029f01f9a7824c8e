"""APIs behind Python's libraries that ask introspection, unmodified. modules.py runs them, and e2e/clients/resource_servers.py."""

import logging

import requests
from authlib.oauth2.rfc7662 import IntrospectTokenValidator


def django_oauth_toolkit(url, asking, **settings_of_toolkit):
    """A view behind its decorator: calls it with a token, and returns the answer."""
    import django
    from django.conf import settings

    settings.configure(
        ALLOWED_HOSTS=["api.example"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "oauth2_provider"],
        LOGGING_CONFIG=None,
        OAUTH2_PROVIDER={
            "RESOURCE_SERVER_INTROSPECTION_URL": f"{url}/oauth2/introspect",
            "RESOURCE_SERVER_INTROSPECTION_CREDENTIALS": (asking["api_key"], asking["api_secret"]),
            **settings_of_toolkit,
        },
        ROOT_URLCONF=__name__,
        SECRET_KEY="of a test that keeps nothing",
        USE_TZ=True,
    )
    django.setup()
    # Each refusal would be a line.
    logging.getLogger("django").addHandler(logging.NullHandler())
    from django.core.management import call_command
    from django.http import HttpResponse
    from django.test import Client
    from django.urls import path
    from oauth2_provider.decorators import protected_resource

    call_command("migrate", verbosity=0)
    view = protected_resource()(lambda request: HttpResponse("orders"))
    # ROOT_URLCONF: Django looks for them here.
    globals()["urlpatterns"] = [path("orders", view)]
    client = Client(headers={"host": "api.example"})
    return lambda token: client.get("/orders", secure=True, headers={"authorization": f"Bearer {token}"})


def authlib(url, asking):
    """Its validator, which raises what it has against a token."""

    class Validator(IntrospectTokenValidator):
        def introspect_token(self, token_string):
            form, credentials = {"token": token_string}, (asking["api_key"], asking["api_secret"])
            return requests.post(f"{url}/oauth2/introspect", data=form, auth=credentials, timeout=120).json()

    validator = Validator()
    return lambda token: validator.validate_token(validator.authenticate_token(token), ["orders:read"], None)
