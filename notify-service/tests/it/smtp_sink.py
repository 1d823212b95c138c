"""An SMTP server for tests. Prints its port, then each mail that it takes as one line of JSON. What stands before the @ of a
receiver says how it is answered; some answers come only the first time. SINK_TLS is nothing, `wrapped` or `starttls`, and
SINK_PEM then the certificate and its key."""

import asyncio
import email
import email.policy
import json
import logging
import os
import ssl
import tempfile
import warnings

from aiosmtpd.smtp import SMTP, AuthResult

# That it takes passwords without TLS is meant so.
logging.disable(logging.WARNING)
warnings.simplefilter("ignore")

FIRST = set()
TLS = os.environ.get("SINK_TLS", "")


def context():
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(os.environ["SINK_PEM"])
        file.flush()
        made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        made.load_cert_chain(file.name)
        return made


CONTEXT = context() if TLS else None


def is_first(mood):
    first = mood not in FIRST
    FIRST.add(mood)
    return first


class Sink:
    async def handle_RCPT(self, server, session, envelope, address, options):
        mood = address.split("@")[0]
        if mood == "unknown":
            return "550 5.1.1 nobody of this name"
        if mood == "full":
            return "552 5.2.2 the mailbox is full"
        if mood == "busy" and is_first(mood):
            return "451 4.3.0 later"
        if mood == "hang" and is_first(mood):
            await asyncio.sleep(3600)
        if mood == "cut" and is_first(mood):
            server.transport.abort()
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        told = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "headers": [[name.lower(), str(value)] for name, value in mail.items()],
            "subject": str(mail["subject"]),
            "text": mail.get_content(),
        }
        print(json.dumps(told), flush=True)
        return "250 OK"


def login(server, session, envelope, mechanism, data):
    return AuthResult(success=(data.login, data.password) == (b"parlance", b"secret"), handled=False)


def smtp():
    starttls = {"tls_context": CONTEXT, "require_starttls": True} if TLS == "starttls" else {}
    return SMTP(Sink(), authenticator=login, auth_require_tls=False, auth_required=True, **starttls)


async def main():
    server = await asyncio.get_running_loop().create_server(smtp, "127.0.0.1", 0, ssl=CONTEXT if TLS == "wrapped" else None)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
