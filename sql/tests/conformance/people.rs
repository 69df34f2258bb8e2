use domain::{IdParts, Role, VideoId};
use sql::{Audience, CreateUser, NewComment, NewSession, NewUser, UpdateUser, UserPatch, VideoFilter};

use crate::both;
use crate::world::World;

fn named(world: &mut World, username: &str, email: &str) -> NewUser {
    NewUser {
        id: world.id(),
        username: username.parse().unwrap(),
        email: Some(email.to_owned()),
        password_hash: "hash".to_owned(),
        role: Role::User,
        display_name: username.to_owned(),
    }
}

both!(names_and_addresses_are_taken_once);
async fn names_and_addresses_are_taken_once(mut world: World) {
    let alice = named(&mut world, "alice", "a@example.org");
    let created = world.catalog.create_user(&alice, world.now).await.unwrap();
    assert!(matches!(created, CreateUser::Created(user) if user.id == alice.id && user.bio.is_empty()));
    let second = named(&mut world, "alice", "b@example.org");
    let refused = world.catalog.create_user(&second, world.now).await.unwrap();
    assert!(matches!(refused, CreateUser::UsernameTaken));
    let third = named(&mut world, "carol", "a@example.org");
    let refused = world.catalog.create_user(&third, world.now).await.unwrap();
    assert!(matches!(refused, CreateUser::EmailTaken));

    for login in ["alice", "a@example.org"] {
        let credentials = world.catalog.credentials(login).await.unwrap().unwrap();
        assert_eq!((credentials.user.id, &*credentials.password_hash), (alice.id, "hash"));
    }
    assert!(world.catalog.credentials("nobody").await.unwrap().is_none());
}

both!(a_profile_keeps_what_a_patch_leaves_out);
async fn a_profile_keeps_what_a_patch_leaves_out(mut world: World) {
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let patch = UserPatch {
        bio: Some("Sails.".to_owned()),
        phone: Some(Some("1".to_owned())),
        ..UserPatch::default()
    };
    world.catalog.update_user(alice, &patch, world.now).await.unwrap();
    let patch = UserPatch { phone: Some(None), email: Some(None), ..UserPatch::default() };
    let UpdateUser::Updated(user) = world.catalog.update_user(alice, &patch, world.now).await.unwrap() else {
        panic!("alice is there");
    };
    assert_eq!((&*user.bio, user.phone, user.email, &*user.display_name), ("Sails.", None, None, "alice"));

    let patch = UserPatch { email: Some(Some("alice2@example.org".to_owned())), ..UserPatch::default() };
    world.catalog.update_user(alice, &patch, world.now).await.unwrap();
    let taken = world.catalog.update_user(bob, &patch, world.now).await.unwrap();
    assert!(matches!(taken, UpdateUser::EmailTaken));
    let nobody = world.id();
    let patch = UserPatch::default();
    assert!(matches!(world.catalog.update_user(nobody, &patch, world.now).await, Ok(UpdateUser::NotFound)));
}

both!(admins);
async fn admins(mut world: World) {
    assert!(!world.catalog.admin_exists().await.unwrap());
    let first = named(&mut world, "root", "r@example.org");
    assert!(world.catalog.create_first_admin(&first, world.now).await.unwrap());
    let second = named(&mut world, "root2", "r2@example.org");
    assert!(!world.catalog.create_first_admin(&second, world.now).await.unwrap());
    assert!(world.catalog.admin_exists().await.unwrap());

    let alice = world.user("alice").await;
    let unused = world.id();
    let name = "alice".parse().unwrap();
    let id = world.catalog.upsert_admin(unused, &name, "new hash", world.now).await.unwrap();
    assert_eq!(id, alice);
    let credentials = world.catalog.credentials("alice").await.unwrap().unwrap();
    assert_eq!((credentials.user.role, &*credentials.password_hash), (Role::Admin, "new hash"));
}

both!(sessions_end_by_revocation_expiry_and_deletion);
async fn sessions_end_by_revocation_expiry_and_deletion(mut world: World) {
    let alice = world.user("alice").await;
    let mut sessions = Vec::new();
    for _ in 0..3 {
        let new = NewSession { id: world.id(), user: alice, expires_at: world.now.plus_s(60) };
        assert!(world.catalog.create_session(&new, world.now).await.unwrap());
        sessions.push(new.id);
    }
    assert!(world.catalog.revoke_session(sessions[0], world.now).await.unwrap());
    assert!(!world.catalog.revoke_session(sessions[0], world.now).await.unwrap());
    assert!(!world.catalog.session_alive(sessions[0], world.now).await.unwrap());
    let password_hash = Some("another".to_owned());
    let patch = UserPatch { password_hash, session_kept: Some(sessions[2]), ..UserPatch::default() };
    world.catalog.update_user(alice, &patch, world.now).await.unwrap();
    assert!(!world.catalog.session_alive(sessions[1], world.now).await.unwrap());
    assert!(world.catalog.session_alive(sessions[2], world.now).await.unwrap());
    assert!(!world.catalog.session_alive(sessions[2], world.now.plus_s(60)).await.unwrap());
    assert_eq!(world.catalog.forget_expired_sessions(world.now.plus_s(60)).await.unwrap(), 3);
    let nobody = world.id();
    let new = NewSession { id: world.id(), user: nobody, expires_at: world.now.plus_s(60) };
    assert!(!world.catalog.create_session(&new, world.now).await.unwrap());
}

both!(a_deleted_account_takes_its_sessions_videos_and_comments_along);
async fn a_deleted_account_takes_its_sessions_videos_and_comments_along(mut world: World) {
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let (of_alice, of_bob) = (world.video_of(alice).await, world.video_of(bob).await);
    let comment = NewComment { id: world.id(), video: of_bob, author: alice, content: "!".to_owned() };
    world.catalog.create_comment(&comment, world.now).await.unwrap().unwrap();
    let session = NewSession { id: world.id(), user: alice, expires_at: world.now.plus_s(60) };
    world.catalog.create_session(&session, world.now).await.unwrap();

    let (now, mut n) = (world.now, 0);
    let next_id = move || {
        n += 1;
        IdParts { now, random: [n; 10] }
    };
    assert!(world.catalog.delete_user(alice, next_id, world.now).await.unwrap());
    assert!(!world.catalog.session_alive(session.id, world.now).await.unwrap());
    assert!(world.catalog.user(alice).await.unwrap().is_none());
    assert!(world.catalog.video(of_alice, world.now).await.unwrap().is_none());
    assert_eq!(world.seen(of_bob).await.comments_count, 0);
    let deletions = world.catalog.deletions(None, None, 10).await.unwrap();
    assert_eq!(deletions.iter().map(|d| d.video).collect::<Vec<_>>(), [of_alice]);
    world.check().await;
}

both!(comments_are_counted_and_paged_newest_first);
async fn comments_are_counted_and_paged_newest_first(mut world: World) {
    let (alice, video) = (world.user("alice").await, world.video().await);
    let mut ids = Vec::new();
    for n in 0..5 {
        world.advance_ms(1);
        let new = NewComment { id: world.id(), video, author: alice, content: n.to_string() };
        world.catalog.create_comment(&new, world.now).await.unwrap().unwrap();
        ids.push(new.id);
    }
    ids.reverse();
    let first = world.catalog.comments(video, None, 3).await.unwrap();
    assert_eq!(first.iter().map(|c| c.id).collect::<Vec<_>>(), ids[..3]);
    assert_eq!(first[0].author.username.as_str(), "alice");
    let rest = world.catalog.comments(video, Some(ids[2]), 3).await.unwrap();
    assert_eq!(rest.iter().map(|c| c.id).collect::<Vec<_>>(), ids[3..]);

    assert!(world.catalog.delete_comment(ids[0]).await.unwrap());
    assert!(!world.catalog.delete_comment(ids[0]).await.unwrap());
    assert_eq!(world.seen(video).await.comments_count, 4);
    let nowhere: VideoId = world.id();
    let new = NewComment { id: world.id(), video: nowhere, author: alice, content: String::new() };
    assert!(world.catalog.create_comment(&new, world.now).await.unwrap().is_none());
    let list = VideoFilter { author: Some(alice), tag: None, audience: Audience::OwnAll };
    assert!(world.catalog.videos(&list, None, 10, world.now).await.unwrap().is_empty());
    world.check().await;
}
