use domain::UserId;
use futures::future::join_all;
use sql::{CreateOnce, NewComment, NewVideo, Once};

use crate::both;
use crate::world::World;

fn video(world: &mut World, author: UserId) -> NewVideo {
    let (id, title) = (world.id(), "once".to_owned());
    let visibility = domain::Visibility::Public;
    NewVideo {
        quota: Default::default(),
        id,
        author,
        title,
        description: String::new(),
        tags: Vec::new(),
        visibility,
    }
}

fn once(key: &str, request: &str) -> Once {
    Once { key: key.to_owned(), request: request.to_owned() }
}

both!(a_key_stands_for_one_effect_and_one_answer);
async fn a_key_stands_for_one_effect_and_one_answer(mut world: World) {
    let author = world.user("alice").await;
    let new: Vec<_> = (0..20).map(|_| video(&mut world, author)).collect();
    let key = once("key", "a video");
    let asked = new.iter().map(|new| world.catalog.create_video_once(new, &key, world.now));
    let mut made: Vec<_> = join_all(asked).await.into_iter().map(Result::unwrap).collect();
    made.dedup();
    let [CreateOnce::Created(first)] = &made[..] else { panic!("{made:?}") };
    assert!(new.iter().any(|new| new.id == first.id));

    let another = video(&mut world, author);
    let reused = world.catalog.create_video_once(&another, &once("key", "another"), world.now).await.unwrap();
    assert_eq!(reused, CreateOnce::KeyReused);
    // Somebody else's key is another one.
    let bertha = world.user("bertha").await;
    let hers = video(&mut world, bertha);
    let created = world.catalog.create_video_once(&hers, &key, world.now).await.unwrap();
    assert!(matches!(created, CreateOnce::Created(video) if video.id == hers.id));
}

both!(comments_have_keys_which_are_forgotten_in_time);
async fn comments_have_keys_which_are_forgotten_in_time(mut world: World) {
    let video = world.ready().await;
    let author = world.user("bertha").await;
    let key = once("key", "a comment");
    let comment = async |world: &mut World| {
        let new = NewComment { id: world.id(), video, author, content: "nice".to_owned() };
        match world.catalog.create_comment_once(&new, &key, world.now).await.unwrap() {
            CreateOnce::Created(comment) => comment.id,
            other => panic!("{other:?}"),
        }
    };
    let first = comment(&mut world).await;
    assert_eq!(comment(&mut world).await, first);
    assert_eq!(world.seen(video).await.comments_count, 1);
    assert_eq!(world.catalog.forget_idempotency_keys(world.now).await.unwrap(), 0);
    world.advance_ms(1);
    assert_eq!(world.catalog.forget_idempotency_keys(world.now).await.unwrap(), 1);
    assert_ne!(comment(&mut world).await, first);
    assert_eq!(world.seen(video).await.comments_count, 2);
    world.check().await;
}
