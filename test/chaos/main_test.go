package chaos

import (
	"os"
	"testing"

	"sluice/test/parallel"
)

func TestMain(m *testing.M) {
	parallel.SetDefault(6)
	os.Exit(m.Run())
}
