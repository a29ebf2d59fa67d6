package prove

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/etcd-lifeboat/lifeboat/internal/server/v3engine"
)

// TestMain lets the test binary be the built-in etcd.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == v3engine.EmbeddedCommand {
		if err := v3engine.RunEmbedded(context.Background(), os.Args[2:], os.Stdin); err != nil {
			fmt.Fprintln(os.Stderr, "lifeboat:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}
