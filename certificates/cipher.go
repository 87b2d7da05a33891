package certificates

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"errors"
	"fmt"
	"io"

	"sluice/config/regular"
)

// A Cipher encrypts values of a key-value store with AES-256-GCM. The name of a value is
// authenticated with it: a value is good for its own name only. A nil Cipher does not
// encrypt. It is safe for concurrent use.
type Cipher struct {
	keys []cipher.AEAD // the first encrypts
}

const (
	// sealedPrefix begins each encrypted value. PEM and JSON do not begin so.
	sealedPrefix = "\x00sluice:aes-256-gcm:1\n"
	keyBytes     = 32
)

// ErrSealed means that a value is encrypted with a key that a Cipher does not have, or
// was changed, or moved from another name.
var ErrSealed = errors.New("the value is encrypted")

// ReadCipher returns a Cipher that encrypts with the key in the first file, and decrypts
// with all. A file has 32 random bytes in base64. No file: the Cipher is nil.
func ReadCipher(files []string) (*Cipher, error) {
	if len(files) == 0 {
		return nil, nil
	}
	c := new(Cipher)
	for _, file := range files {
		key, err := readKey(file)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, err
		}
		aead, err := cipher.NewGCMWithRandomNonce(block)
		if err != nil {
			return nil, err
		}
		c.keys = append(c.keys, aead)
	}
	return c, nil
}

func readKey(file string) ([]byte, error) {
	f, err := regular.Open(file)
	if err != nil {
		return nil, errors.Unwrap(err) // without the path
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 1<<10))
	if err != nil {
		return nil, err
	}
	key, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(text)))
	if err != nil || len(key) != keyBytes {
		return nil, fmt.Errorf("want a key of %d bytes in base64, as by openssl rand -base64 %d", keyBytes, keyBytes)
	}
	return key, nil
}

// Seal encrypts the value of a name with the first key.
func (c *Cipher) Seal(name string, value []byte) []byte {
	if c == nil {
		return value
	}
	return c.keys[0].Seal([]byte(sealedPrefix), nil, value, []byte(name))
}

// Open returns the value of a name that Seal has returned. A value that is not encrypted is
// returned as it is. old: the first key has not encrypted it. Errors wrap ErrSealed.
func (c *Cipher) Open(name string, sealed []byte) (value []byte, old bool, err error) {
	encrypted, ok := bytes.CutPrefix(sealed, []byte(sealedPrefix))
	switch {
	case !ok:
		return sealed, c != nil, nil
	case c == nil:
		return nil, false, fmt.Errorf("%w, and no key is given", ErrSealed)
	}
	for i, key := range c.keys {
		if value, err := key.Open(nil, nil, encrypted, []byte(name)); err == nil {
			return value, i > 0, nil
		}
	}
	return nil, false, fmt.Errorf("%w, and no key decrypts it", ErrSealed)
}
