from hypothesis import settings

settings.register_profile("any pace", deadline=None)
settings.load_profile("any pace")
