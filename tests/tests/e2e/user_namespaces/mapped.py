"""What a container with a user namespace of its own does to a volume, as its runtime and then its users do it.

`mapped.py mount VOLUME TARGET` mounts the volume with its owners mapped, as container runtimes do for pods with
`hostUsers: false`; `mapped.py read VOLUME FILE USER` says as JSON what a user of such a container sees.
"""
import ctypes, hashlib, json, os, stat, struct, sys

# First of the namespace, first of the host, how many.
MAPPING = "0 100000 65536"
# The kernel's numbers, which are the same on every architecture.
OPEN_TREE, MOVE_MOUNT, MOUNT_SETATTR = 428, 429, 442
OPEN_TREE_CLONE, MOVE_MOUNT_F_EMPTY_PATH, AT_EMPTY_PATH, MOUNT_ATTR_IDMAP = 1, 4, 0x1000, 0x100000
AT_FDCWD, CLONE_NEWUSER = -100, 0x10000000

libc = ctypes.CDLL(None, use_errno=True)


def checked(name, result):
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
    return result


def system(name, number, *arguments):
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return checked(name, libc.syscall(ctypes.c_long(number), *words))


def in_user_namespace(outside, inside):
    """Calls `outside` with a new user namespace, and then `inside` in a child as its root."""
    (made, says_made), (mapped, says_mapped) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(says_mapped)
            checked("unshare", libc.unshare(CLONE_NEWUSER))
            os.write(says_made, b".")
            # Nothing when the parent has failed.
            if os.read(mapped, 1):
                inside()
                status = 0
        finally:
            sys.stdout.flush()
            os._exit(status)
    os.close(says_made)
    os.read(made, 1)
    for kind in "uid_map", "gid_map":
        with open(f"/proc/{child}/{kind}", "w") as f:
            f.write(MAPPING)
    namespace = os.open(f"/proc/{child}/ns/user", os.O_RDONLY)
    outside(namespace)
    os.write(says_mapped, b".")
    _, status = os.waitpid(child, 0)
    sys.exit(os.waitstatus_to_exitcode(status))


def mount(volume, target):
    def outside(namespace):
        tree = system("open_tree", OPEN_TREE, AT_FDCWD, volume.encode(), OPEN_TREE_CLONE | os.O_CLOEXEC)
        attributes = struct.pack("QQQQ", MOUNT_ATTR_IDMAP, 0, 0, namespace)
        system("mount_setattr", MOUNT_SETATTR, tree, b"", AT_EMPTY_PATH, attributes, len(attributes))
        system("move_mount", MOVE_MOUNT, tree, b"", AT_FDCWD, target.encode(), MOVE_MOUNT_F_EMPTY_PATH)

    in_user_namespace(outside, lambda: None)


def read(volume, file, user):
    # The way to the volume is the host's: a container has it at its own root.
    root = os.open(volume, os.O_PATH | os.O_DIRECTORY)

    def inside():
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
        with open(os.open(file, os.O_RDONLY, dir_fd=root), "rb") as f:
            found, content = os.fstat(f.fileno()), f.read()
        seen = {
            "owner": [found.st_uid, found.st_gid],
            "mode": oct(stat.S_IMODE(found.st_mode)),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        print(json.dumps(seen))

    in_user_namespace(lambda _: None, inside)


if sys.argv[1] == "mount":
    mount(*sys.argv[2:])
else:
    read(sys.argv[2], sys.argv[3], int(sys.argv[4]))
