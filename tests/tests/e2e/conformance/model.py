"""Reads a mounted dataset at random beside a plain directory with the same files until its input ends, and compares.

usage: model.py SEED MOUNT PLAIN. Prints a line for every hundred calls, or the first difference."""
import mmap, os, random, select, stat, sys

seed, mount, plain = int(sys.argv[1]), sys.argv[2], sys.argv[3]
chance = random.Random(seed)
files, directories = [], [""]
for directory, below, names in os.walk(plain):
    at = os.path.relpath(directory, plain)
    directories += [os.path.join(at, name) for name in below]
    files += [os.path.join(at, name) for name in names]
files.sort()
handles, maps, calls = [], [], 0


def differ(what):
    sys.exit(f"seed {seed}, call {calls}: {what}")


def same(one, other, what):
    if one != other:
        differ(f"{what}: {len(one)} bytes of the mount, {len(other)} of the plain file" if isinstance(one, bytes) else f"{what}: {one} is not {other}")


def open_one():
    if len(handles) < 64:
        name = chance.choice(files)
        flags = os.O_RDONLY | (os.O_NOATIME if chance.random() < 0.2 else 0)
        handles.append((name, os.open(os.path.join(mount, name), flags), os.open(os.path.join(plain, name), os.O_RDONLY)))


def close_one():
    if handles:
        _, one, other = handles.pop(chance.randrange(len(handles)))
        os.close(one)
        os.close(other)


def pread():
    if handles:
        name, one, other = chance.choice(handles)
        size = os.fstat(other).st_size
        at, count = chance.randrange(size + 10), chance.choice([1, 100, 4096, 70_000, 2_000_000])
        if chance.random() < 0.5:
            os.posix_fadvise(one, 0, 0, os.POSIX_FADV_DONTNEED)
        # A read may be short only at the end.
        same(os.pread(one, count, at), os.pread(other, count, at), f"{name} from {at}, {count} bytes")


def map_one():
    if handles and len(maps) < 16:
        name, one, other = chance.choice(handles)
        if os.fstat(other).st_size:
            kind = chance.choice([mmap.MAP_SHARED, mmap.MAP_PRIVATE])
            maps.append((name, mmap.mmap(one, 0, flags=kind, prot=mmap.PROT_READ), mmap.mmap(other, 0, prot=mmap.PROT_READ)))


def read_map():
    if maps:
        name, one, other = chance.choice(maps)
        at = chance.randrange(len(other))
        same(one[at:at + 10_000], other[at:at + 10_000], f"{name} mapped, from {at}")


def unmap_one():
    if maps:
        _, one, other = maps.pop(chance.randrange(len(maps)))
        one.close()
        other.close()


def list_one():
    name = chance.choice(directories)
    same(sorted(os.listdir(os.path.join(mount, name))), sorted(os.listdir(os.path.join(plain, name))), f"the names in {name}")


def look():
    name = chance.choice(files)
    one, other = os.lstat(os.path.join(mount, name)), os.lstat(os.path.join(plain, name))
    same((stat.S_IFMT(one.st_mode), one.st_size), (stat.S_IFMT(other.st_mode), other.st_size), f"what {name} is")
    absent = os.path.join(mount, chance.choice(directories), "absent%d" % chance.randrange(100))
    same(os.path.exists(absent), False, absent)


what = [open_one] * 6 + [close_one] * 5 + [pread] * 20 + [map_one] * 2 + [read_map] * 6 + [unmap_one] + [list_one] + [look] * 4
while not select.select([sys.stdin], [], [], 0)[0]:
    try:
        chance.choice(what)()
    except OSError as e:
        differ(f"{e}")
    calls += 1
    if calls % 100 == 0:
        print(calls, flush=True)
