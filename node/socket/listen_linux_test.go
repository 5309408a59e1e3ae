package socket

import (
	"net"
	"testing"
	"time"
)

// A client that reads nothing costs no more than what the node means to keep for it: not what the kernel would.
func TestTheKernelKeepsLittleOfWhatIsNotRead(t *testing.T) {
	client, nc := connected(t, "127.0.0.1:0", acceptors["accepted"])
	client.(*net.TCPConn).SetReadBuffer(64 << 10)
	piece, kept := make([]byte, 16<<10), 0
	for {
		nc.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		n, err := nc.Write(piece)
		kept += n
		if err != nil {
			break
		}
	}
	t.Logf("%d KB were taken", kept>>10)
	if most := 4 * kernelBytes; kept > most {
		t.Errorf("%d KB were taken for a client that reads nothing, want %d at most", kept>>10, most>>10)
	}
}
