package kernel

// All is the list, by group. Protocol versions are those of the change log in linux/fuse.h, releases those
// of the man pages and of the kernel's history; what is measured is in docs/kernels.md.
func All() []Behaviour {
	return append(append(fuseList(), v9fsList()...), mmList()...)
}

func fuseList() []Behaviour {
	return []Behaviour{
		{Name: "fuse-explicit-inval", Needs: Needs{Flag: ExplicitInvalData, Minor: 30, Linux: Release{5, 2}},
			Says: "with FUSE_EXPLICIT_INVAL_DATA cached pages survive that the file grows and gets another mtime",
			Why:  "head files grow by appends; the cache that all clients share must not be dropped each time"},
		{Name: "fuse-async-read", Needs: Needs{Flag: AsyncRead, Minor: 6, Linux: Release{2, 6}},
			Says: "with FUSE_ASYNC_READ the READs of one read-ahead are under way at once",
			Why:  "a block that waits for its pins must not keep the next one from being read"},
		{Name: "fuse-store-waits", Needs: Needs{What: "NOTIFY_STORE", Minor: 15, Linux: Release{2, 6}},
			Says: "NOTIFY_STORE into a page under READ waits for the READ's reply, and what is stored wins",
			Why:  "whole blocks are put into the page cache after a partial read; nothing older may come over them"},
		{Name: "fuse-store-resident", Needs: Needs{What: "NOTIFY_STORE", Minor: 15, Linux: Release{2, 6}},
			Says: "after NOTIFY_STORE of 2 MiB all its pages are resident and are read without a READ",
			Why:  "one READ brings a whole block; existing clients look at mincore"},
		{Name: "fuse-retrieve-unread", Needs: Needs{What: "NOTIFY_RETRIEVE", Minor: 15, Linux: Release{2, 6}},
			Says: "NOTIFY_RETRIEVE gives no byte of a page under READ and does not wait for it",
			Why:  "old content is taken from the page cache at a commit, which must not hang on a reader"},
		{Name: "fuse-inval-waits", Needs: Needs{What: "NOTIFY_INVAL_INODE", Minor: 12, Linux: Release{2, 6}},
			Says: "invalidation of a page under READ waits for the reply and then drops the page",
			Why:  "a commit is announced only when nobody can get old content any more"},
		{Name: "fuse-past-end",
			Says: "what a read-ahead found to be past the end of the file is read again when the file has grown",
			Why:  "appended blocks would be read as zeros"},
		{Name: "fuse-grown-mapping", Relax: true,
			Says: "a mapping that goes past the end works there once the file has grown and somebody asked for its size",
			Why:  "clients learn that a file has grown by asking for its size: a page fault never does"},
		{Name: "fuse-zero-pages", Relax: true,
			Says: "a short reply inside the size makes pages of zeros without a READ",
			Why:  "the server never answers short inside the size: it would be silent corruption"},
		{Name: "fuse-read-size", Relax: true, Needs: Needs{Flag: MaxPages, Minor: 28, Linux: Release{4, 20}},
			Says: "READs grow to the device's read_ahead_kb (1 MiB)",
			Why:  "speed of sequential reads; `wcfs serve --read-ahead-kb`"},
		{Name: "fuse-remap-in-fault", Needs: Needs{What: "page faults that wait without mmap_lock", Linux: Release{5, 1}},
			Says: "while the first READ of a page fault is held, another thread maps something else over the page",
			Why:  "that is how clients acknowledge a pin; otherwise each pin of a page being read is a deadlock"},
		{Name: "fuse-reread-locked", Relax: true,
			Says: "a page invalidated between reply and retry of its fault is read again under mmap_lock",
			Why:  "such a second READ must need no pin of that process: hence the grace before invalidation"},
		{Name: "fuse-stream", Needs: Needs{What: "FOPEN_STREAM", Linux: Release{5, 2}},
			Says: "with FOPEN_STREAM a write passes while a read of the same descriptor is blocked, and a read while a write is",
			Why:  "clients read and write head/watch through one descriptor from two threads"},
		{Name: "fuse-interrupt", Needs: Needs{What: "INTERRUPT", Minor: 7, Linux: Release{2, 6}},
			Says: "a process killed in a page fault is gone as soon as the server ends its READ on INTERRUPT",
			Why:  "a client that does not acknowledge is killed, and must not stay"},
		{Name: "fuse-death",
			Says: "after the server's death cached pages stay, other reads fail, and close(2) ends with ENOTCONN",
			Why:  "clients of a server that was killed get errors, not hangs"},
	}
}

func mmList() []Behaviour {
	return []Behaviour{
		{Name: "mm-remap-faults",
			Says: "MAP_FIXED over a range that other threads read never lets them see anything but old or new",
			Why:  "clients map a pinned revision over head while other threads compute on it"},
		{Name: "mm-private-copy",
			Says: "a written page of a private mapping is the process's own, other pages follow the file",
			Why:  "clients keep changes that are not committed in private pages over the shared cache"},
		{Name: "mm-punch-hole", Needs: Needs{What: "FALLOC_FL_PUNCH_HOLE on tmpfs", Linux: Release{3, 5}},
			Says: "a hole punched into a tmpfs file gives its memory back, and mappings read zeros",
			Why:  "client memory for dirty pages is a tmpfs file, pieces of which are freed"},
		{Name: "mm-shared-alias",
			Says: "shared anonymous memory can be mapped at a second address by mremap, with the same pages",
			Why:  "one page of a client may be visible at several addresses"},
	}
}

func v9fsList() []Behaviour {
	return []Behaviour{
		{Name: "v9fs-padding",
			Says: "a reply padded to the count asked for ends a read at once, with one Tread",
			Why:  "messages of the watch file are delivered in this way"},
		{Name: "v9fs-short", Relax: true,
			Says: "a short reply ends a read",
			Why:  "where not, the kernel asks again and a message stays undelivered: so replies are padded"},
		{Name: "v9fs-nonblock", Relax: true,
			Says: "with O_NONBLOCK a short reply ends a read",
			Why:  "would spare the padding, if all kernels did it"},
		{Name: "v9fs-direct-short", Relax: true,
			Says: "with O_DIRECT a short reply ends a read",
			Why:  "would spare the padding, if all kernels did it"},
		{Name: "v9fs-pread-pwrite",
			Says: "a pwrite passes while a pread of the same descriptor is blocked",
			Why:  "clients in guests read and write the watch file in this way"},
		{Name: "v9fs-position-lock", Relax: true,
			Says: "a write passes while a read of the same descriptor is blocked",
			Why:  "where not, clients with read and write on one descriptor need the heartbeat"},
		{Name: "v9fs-flush",
			Says: "SIGKILL of a blocked reader sends Tflush, and it is dead when the request ends",
			Why:  "a guest's process that waits for the server can be killed"},
		{Name: "v9fs-read-fresh",
			Says: "with cache=none a read sees the server's content, also while the page is mapped",
			Why:  "guests read head in this way"},
		{Name: "v9fs-direct-fresh", Relax: true,
			Says: "with O_DIRECT a read sees the server's content, also with cache=loose and a page in the cache",
			Why:  "a way past the cache of a mount that was made with one; guests need none, with cache=none"},
		mapped("none", "as it is not, nothing that changes may be mapped by a guest: bases are immutable"),
		mapped("mmap", "as it is not, no other cache mode would let guests map what changes"),
		mapped("readahead", "as with cache=mmap"),
		mapped("loose", "as with cache=mmap; snapshots do not change, so that this mode is right for them"),
		mapped("fscache", "as with cache=loose"),
		{Name: "v9fs-mmap-growth", Relax: true,
			Says: "with cache=none a mapping past the old size shows what was appended",
			Why:  "where it shows zeros, only immutable files may be mapped"},
		{Name: "v9fs-version0", Relax: true,
			Says: "with cache=loose a file of qid version 0 is read from the server each time",
			Why:  "what changes has version 0, so that newer kernels never keep it"},
		{Name: "v9fs-size0",
			Says: "with cache=none a read of a file of size 0 reaches the server",
			Why:  "the watch file and head/at say size 0 or change size"},
		{Name: "v9fs-msize", Relax: true, Needs: Needs{What: "msize of 1 MiB over TCP", Linux: Release{5, 15}},
			Says: "over TCP a message may be 1 MiB: an aligned read of 1020 KiB is one Tread",
			Why:  "speed; msize=1044504 in the documented mounts"},
		{Name: "v9fs-msize-cap", Relax: true,
			Says: "a mount over TCP that asks for messages of 4 MiB proposes 1 MiB",
			Why:  "whether a larger msize could be used; the server's own limit is 1 MiB"},
		{Name: "v9fs-loss",
			Says: "when the connection ends a blocked read ends with an error, and so does all that follows",
			Why:  "a guest that lost its server gets errors, not hangs, and can mount anew"},
		{Name: "v9fs-remap-in-fault", Needs: Needs{What: "page faults that wait without mmap_lock", Linux: Release{5, 1}},
			Says: "while the first Tread of a page fault is held, another thread maps something else over the page",
			Why:  "that is how clients in guests acknowledge a pin"},
	}
}

// mapped is the behaviour of mapped pages under a cache mode of v9fs.
func mapped(mode, why string) Behaviour {
	return Behaviour{Name: "v9fs-mapped-" + mode, Relax: true, Why: why,
		Says: "with cache=" + mode + " a touched page of a mapping is refreshed when the file changes"}
}
