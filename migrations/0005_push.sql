-- Push. Written by notify-service alone, which reads the other tables beside them.

-- Where a user's pushes go.
create table push_devices (
    id uuid primary key not null,
    user_id uuid not null,
    -- The session that registered it. A device that shows messages ends with its session.
    session_id uuid not null,
    -- 1 webpush, 2 fcm, 3 apns, 4 webhook, 5 email.
    platform smallint not null,
    name text,
    -- webpush: the endpoint. At most 2,000 bytes, so that it fits an index.
    target text not null,
    -- webpush: the receiver's P-256 point, and the secret it shares with us (RFC 8291).
    p256dh bytea,
    auth bytea,
    created_at bigint not null,
    unique (user_id, platform, target)
);

-- What a user wants of pushes in general.
create table push_settings (
    user_id uuid primary key not null,
    -- 1 full, 2 sender, 3 none.
    privacy smallint not null,
    -- Minutes of the day in the time zone, a name of the IANA database. All three or none.
    quiet_from smallint,
    quiet_to smallint,
    time_zone text
);

-- What is to be pushed, and afterwards what was decided and why, for 7 days. The key makes a message that is heard of
-- twice one push.
create table pushes (
    room_id uuid not null,
    seq bigint not null,
    user_id uuid not null,
    device_id uuid not null,
    platform smallint not null,
    -- When it was planned, and from then on when it was last decided on.
    at bigint not null,
    -- When it is to be looked at next; absent when it is decided.
    due_at bigint,
    -- Who looks at it, until due_at.
    claim uuid,
    -- Failed tries.
    attempts smallint not null,
    -- 1 sent, 2 withdrawn, 3 cancelled, 4 skipped, 5 failed, 6 dead_lettered; absent before the first decision.
    outcome smallint,
    reason text,
    detail text,
    primary key (room_id, seq, user_id, device_id)
);

create index pushes_by_due on pushes (due_at) where due_at is not null;
create index pushes_by_claim on pushes (claim) where claim is not null;
create index pushes_by_end on pushes (at) where due_at is null;
