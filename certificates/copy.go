package certificates

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path/filepath"

	"sluice/config/regular"
	"sluice/discovery/saved"
)

// A Copy is a file with the last InUse of a Collection, for a start without the store.
// It contains private keys and has the mode 0600.
type Copy struct{ path string }

// CopyIn returns the copy of a collection in a directory, which must exist.
func CopyIn(directory, source string) Copy {
	return Copy{filepath.Join(directory, url.PathEscape(source)+".json")}
}

// Load returns the state; a zero one if there is no file.
func (c Copy) Load() (s InUse, err error) {
	text, err := regular.ReadFile(c.path) // all that Save has written, however much it is
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	if err != nil {
		return InUse{}, fmt.Errorf("copy of certificates %s: %w", c.path, err)
	}
	return s, nil
}

// Save replaces the file. Without keys it does nothing: the last ones are worth more.
func (c Copy) Save(s InUse) error {
	if s.IsZero() {
		return nil
	}
	text, err := json.Marshal(s)
	if err == nil {
		err = saved.Replace(c.path, text)
	}
	if err != nil {
		return fmt.Errorf("copy of certificates %s: %w", c.path, err)
	}
	return nil
}
