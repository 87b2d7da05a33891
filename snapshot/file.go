package snapshot

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

	"sluice/discovery"
)

const (
	version = 1
	// maxFileBytes is beyond a hundred thousand instances: small enough to refuse
	// a file named by mistake.
	maxFileBytes = 256 << 20
)

// file is the file's content.
type file struct {
	Version  int             `json:"version"`
	Checksum string          `json:"checksum"` // of the bytes of Services
	Services json.RawMessage `json:"services"` // an object of entries by name
}

// entry is the last known good set of one service.
type entry struct {
	Source    string     `json:"source"`
	AsOf      time.Time  `json:"as_of"` // when the registry last confirmed it
	Instances []instance `json:"instances"`
}

// instance is a discovery.Instance as the file has it.
type instance struct {
	Service     string            `json:"service"`
	ID          string            `json:"id"`
	Node        string            `json:"node,omitempty"`
	Address     string            `json:"address"`
	Port        int               `json:"port"`
	NodeAddress string            `json:"node_address,omitempty"`
	Tags        []string          `json:"tags,omitempty"`
	Meta        map[string]string `json:"meta,omitempty"`
	Weight      int               `json:"weight"`
	Status      string            `json:"status"`
	Detail      string            `json:"detail,omitempty"`
	Datacenter  string            `json:"datacenter,omitempty"`
	Unchecked   bool              `json:"unchecked,omitempty"`
	Probation   time.Time         `json:"probation,omitzero"`
}

// Set is a set of instances as the file has it, for others who write it.
type Set []discovery.Instance

// MarshalJSON implements json.Marshaler.
func (s Set) MarshalJSON() ([]byte, error) { return json.Marshal(encode(s)) }

// UnmarshalJSON implements json.Unmarshaler. It refuses what no source can have
// reported.
func (s *Set) UnmarshalJSON(data []byte) error {
	var encoded []instance
	if err := json.Unmarshal(data, &encoded); err != nil {
		return err
	}
	set, err := decode(encoded)
	*s = set
	return err
}

func encode(set []discovery.Instance) []instance {
	encoded := make([]instance, len(set))
	for n, i := range set {
		encoded[n] = instance{
			Service: i.Service, ID: i.ID, Node: i.Node, Address: i.Address, Port: i.Port, NodeAddress: i.NodeAddress,
			Tags: i.Tags, Meta: i.Meta, Weight: i.Weight, Status: i.Status.String(), Detail: i.Detail, Datacenter: i.Datacenter,
			Unchecked: i.Unchecked, Probation: i.Probation.UTC().Truncate(time.Millisecond),
		}
	}
	return encoded
}

// decode is the inverse of encode. It refuses what no source can have reported.
func decode(encoded []instance) ([]discovery.Instance, error) {
	set := make([]discovery.Instance, len(encoded))
	for n, i := range encoded {
		status, ok := statuses[i.Status]
		if !ok || i.Address == "" || i.Port < 1 || i.Port > 65535 || i.Weight < 0 || i.Weight > discovery.MaxWeight {
			return nil, fmt.Errorf("instance %q cannot be", i.ID)
		}
		set[n] = discovery.Instance{
			Service: i.Service, ID: i.ID, Node: i.Node, Address: i.Address, Port: i.Port, NodeAddress: i.NodeAddress,
			Tags: i.Tags, Meta: i.Meta, Weight: i.Weight, Status: status, Detail: i.Detail, Datacenter: i.Datacenter,
			Unchecked: i.Unchecked, Probation: i.Probation,
		}
	}
	return discovery.Normalize(set), nil
}

var statuses = map[string]discovery.Status{}

func init() {
	for _, s := range []discovery.Status{discovery.StatusPassing, discovery.StatusWarning, discovery.StatusCritical, discovery.StatusMaintenance} {
		statuses[s.String()] = s
	}
}

// errDamaged: the file is there and cannot be used.
var errDamaged = errors.New("the snapshot is damaged")

// read returns the entries of the file at path, none if there is no file. The
// error is errDamaged, or says why the file cannot be opened.
func read(path string) (map[string]entry, error) {
	f, err := os.Open(path)
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

func parse(data []byte) (map[string]entry, error) {
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
	var entries map[string]entry
	if err := json.Unmarshal(f.Services, &entries); err != nil {
		return nil, err
	}
	for name, e := range entries {
		if _, err := decode(e.Instances); err != nil {
			return nil, fmt.Errorf("service %q: %w", name, err)
		}
	}
	return entries, nil
}

func checksum(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// format is the inverse of parse.
func format(entries map[string]entry) ([]byte, error) {
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

// temporary is the pattern of the names of files that are being written, for
// os.CreateTemp and filepath.Glob.
func temporary(path string) string { return filepath.Base(path) + ".*.tmp" }

// replace makes data the content of the file at path, or leaves it as it was.
func replace(path string, data []byte) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, temporary(path)) // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(data); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes a rename in dir outlast a power failure, where the system can.
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
