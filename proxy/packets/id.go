package packets

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/subtle"
)

const (
	// IDLen is the length of connection ids.
	IDLen = randomLen + codeLen

	randomLen = 8
	codeLen   = 4
)

// ids makes the connection ids of a process, and recognizes those of the process before.
//
// An id is random, and ends with a code of that and of the generation of the process. Only the
// processes can compute it, so an id tells others nothing (RFC 9000, section 5.1). A client chooses
// the id in its first packet at random (section 7.2). One of IDLen bytes looks like an id of the
// process before once in 2^32 times. Then that process accepts the connection.
type ids struct {
	block      cipher.Block
	generation byte // one more in each process
}

func newIDs(key []byte, generation byte) (ids, error) {
	block, err := aes.NewCipher(key)
	return ids{block, generation}, err
}

func (g ids) new() (id [IDLen]byte) {
	_, _ = rand.Read(id[:randomLen]) // it never fails
	code := g.code(id[:randomLen], g.generation)
	copy(id[randomLen:], code[:])
	return id
}

// isOlder reports whether the process before this one has made id.
func (g ids) isOlder(id []byte) bool {
	if len(id) != IDLen {
		return false
	}
	code := g.code(id[:randomLen], g.generation-1)
	return subtle.ConstantTimeCompare(id[randomLen:], code[:]) == 1
}

// code returns the code of the random bytes in a generation.
func (g ids) code(random []byte, generation byte) (code [codeLen]byte) {
	var block [aes.BlockSize]byte
	copy(block[:], random)
	block[randomLen] = generation
	g.block.Encrypt(block[:], block[:])
	copy(code[:], block[:])
	return code
}

// destination returns the connection id to which a packet was sent; nil: it has none of IDLen
// bytes. It reads only what all versions of QUIC have (RFC 8999, section 5).
func destination(packet []byte) []byte {
	const (
		longHeader = 0x80
		lengthAt   = 5 // after the first byte and the version
	)
	start := 1
	if len(packet) > 0 && packet[0]&longHeader != 0 {
		if len(packet) <= lengthAt || packet[lengthAt] != IDLen {
			return nil
		}
		// Version Negotiation, of servers only.
		if [4]byte(packet[1:lengthAt]) == [4]byte{} {
			return nil
		}
		start = lengthAt + 1
	}
	if len(packet) < start+IDLen {
		return nil
	}
	return packet[start : start+IDLen]
}
