"""Says as JSON what a program sees of a mounted dataset; each key is a line of SEMANTICS.md."""
import ctypes, errno, fcntl, json, mmap, os, stat, sys, tempfile, termios

root, big, small = sys.argv[1], os.path.join(sys.argv[1], sys.argv[2]), os.path.join(sys.argv[1], sys.argv[3])


def error(call, *args):
    """The name of the error that a call ends with."""
    try:
        call(*args)
    except OSError as e:
        return errno.errorcode[e.errno]
    return "none"


def reading(path=big, flags=0):
    return os.open(path, os.O_RDONLY | flags)


def content(path=big):
    with open(path, "rb") as f:
        return f.read()


def mapped(flags, prot):
    fd = reading()
    try:
        with mmap.mmap(fd, 0, flags=flags, prot=prot) as m:
            return m[:] == content()
    finally:
        os.close(fd)


def direct():
    fd = reading(flags=os.O_DIRECT)
    buffer, seen, at = mmap.mmap(-1, 1 << 20), b"", 0
    try:
        while True:
            n = os.preadv(fd, [buffer], at)
            seen, at = seen + buffer[:n], at + n
            if n < len(buffer):
                return seen == content()
    finally:
        os.close(fd)


def copied(copy):
    """Copies by one of the kernel's own ways."""
    source, size = reading(), os.path.getsize(big)
    with tempfile.TemporaryFile() as target:
        at = 0
        while at < size:
            n = copy(source, target.fileno(), at, size - at)
            if n == 0:
                break
            at += n
        os.close(source)
        target.seek(0)
        return target.read() == content()


def spliced(source, target, at, count):
    r, w = os.pipe()
    try:
        n = os.splice(source, w, min(count, 65536), offset_src=at)
        left = n
        while left:
            left -= os.splice(r, target, left)
        return n
    finally:
        os.close(r)
        os.close(w)


def copied_or_elsewhere():
    """Works within a file system; from one to another the kernel says EXDEV, and programs copy by reading."""
    try:
        return copied(lambda source, target, at, count: os.copy_file_range(source, target, count, offset_src=at))
    except OSError as e:
        return e.errno == errno.EXDEV


def xattrs(path):
    """Of users; a file system that has none at all says so, and programs take it for an empty list."""
    try:
        return [name for name in os.listxattr(path) if not name.startswith("security.")]
    except OSError as e:
        return [] if e.errno == errno.EOPNOTSUPP else [e]


def locks():
    one, other = reading(), reading()
    try:
        fcntl.flock(one, fcntl.LOCK_EX)
        held = error(fcntl.flock, other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(one, fcntl.LOCK_UN)
        fcntl.lockf(other, fcntl.LOCK_SH)
        return held
    finally:
        os.close(one)
        os.close(other)


kinds, inodes, modes, owners, count = set(), set(), set(), set(), 0
for directory, directories, files in os.walk(root):
    for name in directories + files:
        found = os.lstat(os.path.join(directory, name))
        kinds.add(stat.S_IFMT(found.st_mode))
        modes.add((stat.S_IFMT(found.st_mode), stat.S_IMODE(found.st_mode)))
        owners.add((found.st_uid, found.st_gid))
        inodes.add(found.st_ino)
        count += 1

fd, size = reading(), os.path.getsize(big)
before = os.stat(big).st_ino
seen = {
    "only files and directories": kinds <= {stat.S_IFREG, stat.S_IFDIR},
    "modes": modes == {(stat.S_IFREG, 0o444), (stat.S_IFDIR, 0o755)},
    "owners": owners == {(0, 0)},
    "inode numbers differ": len(inodes) == count,
    "inode numbers stay": os.stat(big).st_ino == before == os.fstat(fd).st_ino,
    "changes": {
        "open for writing": error(os.open, big, os.O_WRONLY),
        "open for both": error(os.open, big, os.O_RDWR),
        "create": error(os.open, os.path.join(root, "new"), os.O_WRONLY | os.O_CREAT),
        "truncate": error(os.truncate, big, 0),
        "unlink": error(os.unlink, big),
        "rename": error(os.rename, big, os.path.join(root, "new")),
        "mkdir": error(os.mkdir, os.path.join(root, "new")),
        "symlink": error(os.symlink, "x", os.path.join(root, "new")),
        "link": error(os.link, big, os.path.join(root, "new")),
        "chmod": error(os.chmod, big, 0o777),
        "chown": error(os.chown, big, 1, 1),
        "utime": error(os.utime, big, (1, 1)),
        "setxattr": error(os.setxattr, big, "user.x", b"x"),
    },
    "no such name": error(os.stat, os.path.join(root, "none")),
    "a file is no directory": error(os.stat, os.path.join(big, "x")),
    "a directory cannot be read": error(os.read, os.open(root, os.O_RDONLY), 1),
    "exec": error(os.execv, small, [small]),
    "at the end": [len(os.pread(fd, 10, size - 3)), len(os.pread(fd, 10, size)), len(os.pread(fd, 10, size + 9))],
    "private map": mapped(mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE),
    "shared map": mapped(mmap.MAP_SHARED, mmap.PROT_READ),
    "shared map for writing": error(mapped, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE),
    "direct": direct(),
    "sendfile": copied(lambda source, target, at, count: os.sendfile(target, source, at, count)),
    "splice": copied(spliced),
    "copy_file_range": copied_or_elsewhere(),
    "holes": [os.lseek(fd, 0, os.SEEK_DATA), os.lseek(fd, 0, os.SEEK_HOLE) - size],
    "fsync": error(os.fsync, fd),
    "locks": locks(),
    "xattrs": xattrs(big) + xattrs(root),
    "getxattr": error(os.getxattr, big, "user.x") in ("ENODATA", "EOPNOTSUPP", "ENOTSUP"),
    "ioctl": error(fcntl.ioctl, fd, termios.TCGETS, bytes(64)),
    "readahead": error(os.posix_fadvise, fd, 0, 0, os.POSIX_FADV_WILLNEED),
    "mount flags": os.statvfs(root).f_flag & (os.ST_RDONLY | os.ST_NOSUID | os.ST_NODEV)
    == os.ST_RDONLY | os.ST_NOSUID | os.ST_NODEV,
}
print(json.dumps(seen))
