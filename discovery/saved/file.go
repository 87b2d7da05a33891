package saved

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"sluice/config/regular"
	"sluice/discovery"
)

const (
	version = 2
	// maxFileBytes is more than a hundred thousand instances need.
	maxFileBytes = 256 << 20
)

type file struct {
	Version  int             `json:"version"`
	Checksum string          `json:"checksum"` // of the bytes of Services
	Services json.RawMessage `json:"services"` // the states, by service
}

// errDamaged: the file cannot be used.
var errDamaged = errors.New("the snapshot is damaged")

// read returns the entries of the file, none if there is no file. The error is
// errDamaged, or an error of opening the file.
func read(path string) (map[string]discovery.WatchState, error) {
	f, err := regular.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, err
	}
	entries, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", errDamaged, path, err)
	}
	return entries, nil
}

func parse(data []byte) (map[string]discovery.WatchState, error) {
	if len(data) > maxFileBytes {
		return nil, fmt.Errorf("it is larger than %d bytes", maxFileBytes)
	}
	var f file
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, err
	}
	if f.Version != version {
		return nil, fmt.Errorf("its version is %d, this sluice reads version %d", f.Version, version)
	}
	if sum := checksum(f.Services); f.Checksum != sum {
		return nil, fmt.Errorf("its checksum is %q, its content's is %q", f.Checksum, sum)
	}
	var entries map[string]discovery.WatchState
	if err := json.Unmarshal(f.Services, &entries); err != nil {
		return nil, err
	}
	return entries, nil
}

func checksum(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// format is the inverse of parse.
func format(entries map[string]discovery.WatchState) ([]byte, error) {
	services, err := json.Marshal(entries)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, `{"version":%d,"checksum":%q,"services":`, version, checksum(services))
	b.Write(services)
	b.WriteString("}\n")
	return b.Bytes(), nil
}

// Replace writes the file at path atomically: a reader, and a process after a crash, finds the old
// content or the new one. Only its owner can read it. The next Replace of a path removes what a
// crash has left.
func Replace(path string, data []byte) error {
	dir := filepath.Dir(path)
	pattern := filepath.Base(path) + ".*.tmp"
	f, err := os.CreateTemp(dir, pattern) // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	left, _ := filepath.Glob(filepath.Join(dir, pattern))
	for _, name := range left {
		// A newer file may be another process's.
		if info, err := os.Stat(name); err == nil && time.Since(info.ModTime()) > time.Minute {
			os.Remove(name)
		}
	}
	return syncDir(dir)
}

// syncDir makes a rename in dir durable, if the system can.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, os.ErrInvalid) {
		return err
	}
	return nil
}
