# What runc's tests call recvtty: takes the terminals that come over a socket and reads them to nowhere.
# recvtty.py [--no-stdin] --pid-file FILE [--mode null] SOCKET
import array, os, socket, sys, threading

pid_file, path = sys.argv[sys.argv.index("--pid-file") + 1], sys.argv[-1]
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen()
with open(pid_file, "w") as file:
    file.write(str(os.getpid()))


def drain(terminal):
    try:
        while os.read(terminal, 4096):
            pass
    except OSError:
        pass  # the last of the other side is closed
    os.close(terminal)


while True:
    connection, _ = listener.accept()
    with connection:
        _, messages, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(4))
    for _, _, data in messages:
        terminal = array.array("i", data[:4])[0]
        threading.Thread(target=drain, args=(terminal,), daemon=True).start()
