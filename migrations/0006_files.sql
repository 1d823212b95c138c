-- Files: what is known of them. The bytes are in the store of the gateways, under names made of the id.

create table files (
    id uuid primary key not null,
    owner uuid not null,
    name text not null,
    -- By content; absent until the content is known.
    media_type text,
    -- Bytes, as quotas count them. While pending, what is kept free for them.
    size bigint not null,
    width bigint,
    height bigint,
    blurhash text,
    -- 0 no thumbnails, 1 as JPEG, 2 as PNG.
    thumbnails smallint not null,
    -- 1 pending, 2 ready, 3 rejected, 4 to be removed.
    state smallint not null,
    -- Why it was rejected.
    reason text,
    idempotency_key text,
    at bigint not null,
    -- When the sweep takes it. Absent while something refers to it.
    expires_at bigint,
    unique (owner, idempotency_key)
);

create index files_by_expiry on files (expires_at);

-- Bytes that the files of an owner take, and that all take under the nil id. Locked in the order of the ids.
create table file_usage (
    owner uuid primary key not null,
    bytes bigint not null
);
