from verdigris.wire.postgres import session

class SessionTracker(session.SessionTracker): ...  # not in truth, but in all that can be seen of it
