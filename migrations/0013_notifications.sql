-- What users are told of inside the program. Written by notify-service alone.

create table notifications (
    -- Made in the order of time; pages and the mark "read up to" go by it.
    id uuid primary key not null,
    user_id uuid not null,
    -- 1 mention, 2 reply, 3 invitation, 4 missed direct message.
    kind smallint not null,
    room_id uuid not null,
    -- The message. Of an invitation the notice, 0 when the room was made with the user in it.
    seq bigint not null,
    -- Who mentioned, replied, invited or wrote.
    sender uuid not null,
    at bigint not null,
    -- When it was marked as read. Reading the room reads it as well, without this.
    read_at bigint,
    -- A message is told of once, however often it is heard of.
    unique (room_id, seq, user_id)
);

create index notifications_by_user on notifications (user_id, id);
create index notifications_by_age on notifications (at);

-- Members of direct rooms who are looked at: whether they miss what came. One look, however many messages come before it.
create table missed (
    user_id uuid not null,
    room_id uuid not null,
    due_at bigint not null,
    -- Who looks, until due_at.
    claim uuid,
    primary key (user_id, room_id)
);

create index missed_by_due on missed (due_at);
create index missed_by_claim on missed (claim) where claim is not null;
