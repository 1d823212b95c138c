-- Accounts. One SQL subset serves PostgreSQL and SQLite: ids are made by the program, instants are milliseconds.

create table users (
    id uuid primary key not null,
    -- Already folded to lower case; compared byte by byte, so that prefixes and order are alike on both engines.
    username text collate "C" not null unique,
    display_name text not null,
    -- The display name in lower case, for prefix search.
    name_folded text collate "C" not null,
    avatar uuid,
    bot boolean not null,
    -- Absent for accounts that do not log in by password.
    password_hash text,
    -- Counts what happened to the user: rooms joined and left, sessions, password. Tells a gateway what it missed.
    rev bigint not null,
    created_at bigint not null,
    -- Whether others see this user's receipts, and presence.
    show_receipts boolean not null,
    show_presence boolean not null
);

create index users_by_name on users (name_folded, id);

create table sessions (
    id uuid primary key not null,
    user_id uuid not null,
    device text,
    created_at bigint not null,
    last_used_at bigint not null,
    revoked_at bigint
);

create index sessions_by_user on sessions (user_id);

create table refresh_tokens (
    -- SHA-256 of the token: a stolen table logs nobody in.
    hash bytea primary key not null,
    session_id uuid not null,
    issued_at bigint not null,
    -- When it was exchanged for the next one, and with which attempt. Spending it again otherwise revokes the session.
    spent_at bigint,
    attempt uuid
);

create index refresh_tokens_by_session on refresh_tokens (session_id);

-- Facts about the deployment. 'generation': renewed by the operator after a restore, so that clients start over.
create table facts (
    name text primary key not null,
    value text not null
);
