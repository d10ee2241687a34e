from django.apps import AppConfig


class OsintConfig(AppConfig):
    name = "osint"
    verbose_name = "Investigations"
    default_auto_field = "django.db.models.BigAutoField"
