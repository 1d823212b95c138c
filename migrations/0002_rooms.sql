-- Rooms, their members and messages. The room leads every key, so that all of it can be partitioned by room.

create table rooms (
    id uuid primary key not null,
    -- 1 direct, 2 group, 3 channel.
    kind smallint not null,
    name text,
    -- The name in lower case, for search.
    name_folded text collate "C",
    topic text,
    avatar uuid,
    created_at bigint not null,
    -- The latest message, or the creation: orders one's own rooms. In no index, see below.
    active_at bigint not null,
    first_seq bigint not null,
    -- Two dense counters that move only under this row's lock: messages, and changes of any kind.
    seq bigint not null,
    rev bigint not null,
    -- The rev of the last change of name, topic or settings.
    info_rev bigint not null,
    member_count bigint not null,
    archived boolean not null,
    history_joined boolean not null,
    announcement boolean not null,
    slow_mode_s bigint not null,
    retention_days bigint
);

-- Without what every message changes: PostgreSQL then updates the row in place of its page (HOT).
create index rooms_by_kind on rooms (kind, id);

-- The one room of two users, whichever of them asked first. `low` is the smaller id.
create table direct_rooms (
    low uuid not null,
    high uuid not null,
    room_id uuid not null,
    primary key (low, high)
);

-- Members stay as `present = false` when they leave, with the rev of leaving: those who catch up learn of it.
create table members (
    room_id uuid not null,
    user_id uuid not null,
    present boolean not null,
    -- 1 member, 2 admin, 3 owner.
    role smallint not null,
    joined_at bigint not null,
    rev bigint not null,
    -- The rev with which the present membership began.
    joined_rev bigint not null,
    -- Messages up to this seq are not shown.
    visible_from_seq bigint not null,
    read_seq bigint not null,
    delivered_seq bigint not null,
    muted_until bigint,
    -- When this member last sent something, for slow mode.
    sent_at bigint,
    -- The member's own settings, with a counter of their own.
    me_rev bigint not null,
    me_muted_until bigint,
    -- 1 all, 2 mentions, 3 none.
    notify smallint not null,
    favourite boolean not null,
    draft text,
    primary key (room_id, user_id)
);

create index members_by_rev on members (room_id, rev);

-- "My rooms", by user; written on join and leave.
create table user_rooms (
    user_id uuid not null,
    room_id uuid not null,
    primary key (user_id, room_id)
);

create table messages (
    room_id uuid not null,
    seq bigint not null,
    -- The rev of its last change.
    rev bigint not null,
    id uuid not null,
    client_id uuid not null,
    sender uuid not null,
    -- 1 text, 2 system.
    kind smallint not null,
    text text not null,
    reply_to bigint,
    -- A JSON object.
    meta text,
    at bigint not null,
    edited_at bigint,
    deleted_at bigint,
    primary key (room_id, seq),
    -- The same message sent again is the same message, for ever.
    unique (room_id, sender, client_id)
);

create index messages_by_rev on messages (room_id, rev);

-- What a transaction still has to tell. Claimed by time, never read by "id greater than".
create table outbox (
    id uuid primary key not null,
    -- By the database's clock: whoever made or took it publishes it until then.
    claimed_until bigint not null,
    batch bytea not null
);

create index outbox_by_claim on outbox (claimed_until);

-- Answers to POSTs that carried an Idempotency-Key, for 24 h.
create table idempotency_keys (
    user_id uuid not null,
    key text not null,
    room_id uuid not null,
    at bigint not null,
    primary key (user_id, key)
);
