"""Secret values at rest: encrypted, with a key in a file of its own. Who reads the database, a replica or a backup of it, has
names and no values; to restore one, the key file has to be there as well.
"""

from __future__ import annotations

from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken
from sqlalchemy import Engine, select, update

from orchestrator.errors import Refused, StorageFailed
from orchestrator.settings import write_private
from orchestrator.store.tables import secrets

_MARK = "fernet:"  # what was written before values were encrypted has none


class SecretBox:
    """Seals values and opens them again."""

    def __init__(self, key_file: Path) -> None:
        """Makes the key where there is none yet. Raises Refused for a file that holds no key, StorageFailed."""
        self._key_file = key_file
        try:
            if not key_file.exists():
                key_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                write_private(key_file, Fernet.generate_key().decode() + "\n")
            self._fernet = Fernet(key_file.read_text().strip())
        except OSError as error:
            raise StorageFailed(f"{key_file}: the key of secrets cannot be read or made: {error.strerror}") from error
        except ValueError as error:
            raise Refused(f"{key_file} holds no key of secrets: put back the one that this server wrote") from error

    def seal(self, value: str) -> str:
        return _MARK + self._fernet.encrypt(value.encode()).decode()

    def open(self, sealed: str) -> str:
        """Raises Refused for what was sealed with another key."""
        try:
            return self._fernet.decrypt(sealed.removeprefix(_MARK)).decode()
        except InvalidToken as error:
            raise Refused(
                f"the database's secrets were encrypted with another key than that in {self._key_file}: put back the file "
                "that belongs to this database, or delete the rows of its table `secrets` and put the secrets again"
            ) from error

    def take_over(self, engine: Engine) -> None:
        """Seal what a version before encryption wrote, and see that this key opens the rest, before anybody needs it."""
        with engine.begin() as connection:
            for project, name, value in connection.execute(select(secrets)).all():
                if value.startswith(_MARK):
                    self.open(value)
                    continue
                row = (secrets.c.project == project) & (secrets.c.name == name)
                connection.execute(update(secrets).where(row).values(value=self.seal(value)))
