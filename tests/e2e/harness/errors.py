"""What an SDK was refused."""


class SdkError(Exception):
    """An error with the code that the server gave."""

    def __init__(self, code, message):
        super().__init__(f"{code}: {message}")
        self.code = code
