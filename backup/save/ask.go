package save

import (
	"context"
	"errors"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-lifeboat/lifeboat/backup/live"
	"github.com/etcd-lifeboat/lifeboat/repository"
)

// ask has the member say what the image alone does not tell: the hash and the
// number of its keys at its revision, and who the members are. The image is
// whole without; what is not answered is noted.
func (l *liveJob) ask(ctx context.Context, choice live.Choice) {
	client, err := live.Dial(ctx, l.cfg, choice.Address)
	if err != nil {
		l.note("hash and number of the keys and the members are not known: %v", err)
		return
	}
	defer client.Close()
	if l.facts.Revision == 0 {
		l.note("hash and number of the keys are not known, since the snapshot's revision is not")
	} else {
		l.askKeyspace(ctx, client, choice.Address)
	}
	l.question(ctx, "the list of members", l.o.Timeout, func(ctx context.Context) error { return l.askMembers(ctx, client) })
}

// askKeyspace asks for what is known of the keys at the image's revision.
func (l *liveJob) askKeyspace(ctx context.Context, client *clientv3.Client, address string) {
	// A member hashes some hundred MB a second; a slow one gets time for 20.
	hashing := l.o.Timeout + time.Duration(l.size/(20<<20))*time.Second
	l.question(ctx, "the hash of the keys", hashing, func(ctx context.Context) error {
		return l.askHash(ctx, client, address)
	})
	l.question(ctx, "the number of keys", hashing, func(ctx context.Context) error { return l.askKeys(ctx, client) })
}

// question puts a question, and notes that there was no answer. The client
// itself asks again, as long as there is time, what it can ask again.
func (l *liveJob) question(ctx context.Context, what string, timeout time.Duration, put func(context.Context) error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := put(ctx); err != nil {
		l.note("%s is not known: %v", what, err)
	}
}

// errCompacted says that a compaction changed what a hash is over.
var errCompacted = errors.New("a compaction came between the snapshot and the question")

func (l *liveJob) askHash(ctx context.Context, client *clientv3.Client, address string) error {
	m := &l.facts
	answer, err := client.HashKV(ctx, address, m.Revision)
	if err != nil {
		return err
	}
	if answer.CompactRevision != m.CompactRevision {
		return errCompacted
	}
	m.HashKV, m.HashRevision = &answer.Hash, m.Revision
	return nil
}

// askKeys counts all keys. The member answers for itself, without its leader.
func (l *liveJob) askKeys(ctx context.Context, client *clientv3.Client) error {
	answer, err := client.Get(ctx, "", clientv3.WithFromKey(), clientv3.WithCountOnly(),
		clientv3.WithRev(l.facts.Revision), clientv3.WithSerializable())
	if err != nil {
		return err
	}
	l.facts.Keys = &answer.Count
	return nil
}

func (l *liveJob) askMembers(ctx context.Context, client *clientv3.Client) error {
	answer, err := client.MemberList(ctx, clientv3.WithSerializable())
	if err != nil {
		return err
	}
	m := &l.facts
	for _, member := range answer.Members {
		id := formatID(member.ID)
		if id == m.MemberID {
			m.MemberName = member.Name
		}
		m.Members = append(m.Members, repository.Member{
			ID: id, Name: member.Name, PeerURLs: member.PeerURLs, ClientURLs: member.ClientURLs, Learner: member.IsLearner,
		})
	}
	return nil
}
