package doctor

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"sluice/config"
	"sluice/proxy/packets"
)

// maxReceiveBuffer is where Linux says how large a process may make the buffer of a socket.
const maxReceiveBuffer = "/proc/sys/net/core/rmem_max"

// readReceiveBuffer returns how many bytes of received UDP packets this machine's kernel keeps for a
// socket, if that matters to the configuration; 0: it does not, or is not known.
func (f *Facts) readReceiveBuffer() int {
	if f.Config == nil || !slices.ContainsFunc(f.Config.Listeners, func(l config.Listener) bool { return l.HTTP3 }) {
		return 0
	}
	text, _ := os.ReadFile(maxReceiveBuffer)
	size, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return size
}

// bufferFindings are about the buffers of listeners with HTTP/3.
func (f *Facts) bufferFindings() []Finding {
	if f.ReceiveBuffer == 0 || f.ReceiveBuffer >= packets.WantedBuffer {
		return nil
	}
	return []Finding{{
		Severity: SeverityNotice, Code: CodeUDPBuffer,
		Seen: fmt.Sprintf("a listener has http3, and this machine allows buffers of %d KiB for UDP", f.ReceiveBuffer>>10),
		Why:  fmt.Sprintf("sluice asks for %d KiB. While it is busy, the kernel drops packets that do not fit, and clients send them again. A sluice with CAP_NET_ADMIN is not limited.", packets.WantedBuffer>>10),
		Do:   "Allow larger buffers, if sluice runs on this machine.",
		Command: fmt.Sprintf("sysctl -w net.core.rmem_max=%d net.core.wmem_max=%d",
			packets.WantedBuffer, packets.WantedBuffer),
	}}
}
