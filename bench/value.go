package main

import (
	"fmt"
	"math/rand/v2"
	"strconv"
)

// objects makes the keys and values of a Kubernetes-like store: the same seed
// makes the same ones. Values are manifests of about 1 KB, mostly words that
// repeat from object to object, with ids and digests that do not: zstd makes
// about a quarter of them.
type objects struct {
	rng *rand.Rand
	buf []byte
}

func newObjects(seed uint64) *objects {
	return &objects{rng: rand.New(rand.NewPCG(seed, 0x6c696665626f6174))}
}

var (
	kinds      = []string{"pods", "configmaps", "secrets", "leases", "endpointslices", "replicasets"}
	namespaces = []string{"default", "kube-system", "payments", "search", "checkout", "monitoring", "ingress", "batch"}
	apps       = []string{"frontend", "gateway", "ledger", "indexer", "scheduler", "mailer", "catalog", "session", "worker", "proxy"}
	tiers      = []string{"web", "data", "cache", "control"}
	phases     = []string{"Running", "Pending", "Succeeded"}
)

// key names object n under prefix.
func (o *objects) key(prefix string, n int) string {
	h := uint32(n) * 2654435761
	return fmt.Sprintf("%s/%s/%s/%s-%08x", prefix,
		kinds[n%len(kinds)], namespaces[n/7%len(namespaces)], apps[n/3%len(apps)], h)
}

// value makes the next version of object n. It is valid until the next call.
func (o *objects) value(n, version int) []byte {
	app, ns := apps[n/3%len(apps)], namespaces[n/7%len(namespaces)]
	b := append(o.buf[:0], `{"kind":"Pod","apiVersion":"v1","metadata":{"name":"`...)
	b = append(b, app...)
	b = append(b, `","namespace":"`...)
	b = append(b, ns...)
	b = o.hex(append(b, `","uid":"`...), 32)
	b = strconv.AppendInt(append(b, `","resourceVersion":"`...), int64(version), 10)
	b = append(b, `","labels":{"app":"`...)
	b = append(b, app...)
	b = append(b, `","tier":"`...)
	b = append(b, o.pick(tiers)...)
	b = o.hex(append(b, `","pod-template-hash":"`...), 10)
	b = append(b, `"},"ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","controller":true,"blockOwnerDeletion":true,"uid":"`...)
	b = o.hex(b, 32)
	b = append(b, `"}]},"spec":{"nodeName":"node-`...)
	b = strconv.AppendInt(b, int64(o.rng.IntN(200)), 10)
	b = append(b, `","restartPolicy":"Always","serviceAccountName":"`...)
	b = append(b, app...)
	b = append(b, `","containers":[{"name":"`...)
	b = append(b, app...)
	b = o.hex(append(b, `","image":"registry.example.com/shop/app@sha256:`...), 64)
	b = append(b, `","ports":[{"name":"http","containerPort":8080,"protocol":"TCP"}],"resources":{"limits":{"cpu":"500m","memory":"256Mi"},"requests":{"cpu":"100m","memory":"128Mi"}},"terminationMessagePath":"/dev/termination-log"}]},"status":{"phase":"`...)
	b = append(b, o.pick(phases)...)
	b = append(b, `","podIP":"10.`...)
	for i := range 3 {
		b = strconv.AppendInt(b, int64(o.rng.IntN(256)), 10)
		if i < 2 {
			b = append(b, '.')
		}
	}
	b = append(b, `","conditions":[{"type":"Ready","status":"True"},{"type":"PodScheduled","status":"True"}],"message":"`...)
	for range o.rng.IntN(12) {
		b = append(append(b, o.pick(apps)...), ' ')
	}
	o.buf = append(b, `"}}`...)
	return o.buf
}

func (o *objects) pick(words []string) string { return words[o.rng.IntN(len(words))] }

// hex appends n random hex digits.
func (o *objects) hex(b []byte, n int) []byte {
	const digits = "0123456789abcdef"
	for n > 0 {
		for bits, i := o.rng.Uint64(), 0; i < 16 && n > 0; i, n = i+1, n-1 {
			b = append(b, digits[bits&15])
			bits >>= 4
		}
	}
	return b
}
